/* represent_save.c: a comparison of hidden states as a directory: JSON, tables, pictures.
 * Pinned by tests/unit/test_represent.c.
 */
#include "lab/represent_plot.h"

#include <jansson.h>
#include <stdlib.h>

/* RFC 4180 */
static bool put_field(tm__string *out, const char *text) {
    if (!strpbrk(text, ",\"\r\n")) return tm__string_append(out, text, strlen(text));
    bool ok = tm__string_append(out, "\"", 1);
    for (; *text && ok; text++)
        ok = tm__string_append(out, text, 1) && (*text != '"' || tm__string_append(out, "\"", 1));
    return ok && tm__string_append(out, "\"", 1);
}

static bool put_points(const tm_representation *r, tm__string *out) {
    const int64_t k = r->options.components;
    bool ok = tm__string_printf(out, "model,layer,kind,row,half");
    for (int64_t c = 0; c < k && ok; c++) ok = tm__string_printf(out, ",pc%lld", (long long)c + 1);
    for (size_t m = 0; m < r->model_count && ok; m++)
        for (int64_t l = 0; l < r->layer_count && ok; l++)
            for (size_t i = 0; i < r->count && ok; i++) {
                const tm__represent_row *row = &r->rows[i];
                ok = tm__string_append(out, "\n", 1) && put_field(out, r->models[m].name) &&
                     tm__string_printf(out, ",%lld,%s,%zu,%s", (long long)r->layers[l],
                                       row->harmful ? "harmful" : "harmless", row->row + 1,
                                       row->train ? "train" : "test");
                for (int64_t c = 0; c < k && ok; c++)
                    ok = tm__string_printf(out, ",%.9g", r->models[m].layers[l].points[(int64_t)i * k + c]);
            }
    return ok && tm__string_append(out, "\n", 1);
}

static bool put_layers(const tm_representation *r, tm__string *out) {
    const int64_t k = r->options.components;
    bool ok = tm__string_printf(out, "model,layer,accuracy,low,high,auc,train_accuracy,control,control_train");
    for (int64_t c = 0; c < k && ok; c++)
        ok = tm__string_printf(out, ",explained%lld,own%lld", (long long)c + 1, (long long)c + 1);
    for (size_t m = 0; m < r->model_count && ok; m++)
        for (int64_t i = 0; i < r->layer_count && ok; i++) {
            const tm_represent_layer *l = &r->models[m].layers[i];
            ok = tm__string_append(out, "\n", 1) && put_field(out, r->models[m].name) &&
                 tm__string_printf(out, ",%lld,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g", (long long)l->layer,
                                   l->accuracy.value, l->accuracy.low, l->accuracy.high, l->auc, l->train_accuracy,
                                   l->control, l->control_train);
            for (int64_t c = 0; c < k && ok; c++) ok = tm__string_printf(out, ",%.9g,%.9g", l->explained[c], l->own[c]);
        }
    return ok && tm__string_append(out, "\n", 1);
}

static tm_status write_table(const tm_representation *r, const char *directory, const char *name,
                             bool (*put)(const tm_representation *, tm__string *)) {
    tm__string text = {0};
    char *path = tm__path_join(directory, name);
    tm_status status = path && put(r, &text) ? tm__file_write(path, text.data, text.len) : tm__fail_memory();
    free(path);
    tm__string_free(&text);
    return status;
}

static tm_status write_json(const tm_representation *r, const char *directory) {
    char *text = NULL, *path = tm__path_join(directory, "representation.json");
    tm_status status = path ? tm__represent_json(r, JSON_INDENT(1), &text) : tm__fail_memory();
    if (status == TM_OK) status = tm__file_write(path, text, strlen(text));
    free(text);
    free(path);
    return status;
}

static tm_status write_picture(const tm_representation *r, const char *directory, const char *name,
                               tm_status (*draw)(const tm_representation *, const char *)) {
    char *path = tm__path_join(directory, name);
    tm_status status = path ? draw(r, path) : tm__fail_memory();
    free(path);
    return status;
}

static tm_status fill(const tm_representation *r, const char *directory, const tm_monitor *monitor) {
    TM__TRY(write_json(r, directory));
    TM__TRY(write_table(r, directory, "points.csv", put_points));
    TM__TRY(write_table(r, directory, "layers.csv", put_layers));
    tm_status status = write_picture(r, directory, "components", tm__represent_plot_components);
    if (status == TM_OK || status == TM_UNSUPPORTED)
        status = write_picture(r, directory, "probe", tm__represent_plot_probe);
    if (status != TM_UNSUPPORTED) return status;
    tm__note(monitor, "gnuplot is not installed (package gnuplot-nox): tables and scripts are written, no pictures");
    return TM_OK;
}

/* Only what this wrote is replaced, never a directory of something else. */
static tm_status check_replaced(const char *directory) {
    char *path = tm__path_join(directory, "representation.json");
    if (!path) return tm__fail_memory();
    bool ours = !tm__path_exists(directory) || tm__path_is_empty_directory(directory) || tm__path_exists(path);
    free(path);
    return ours ? TM_OK
                : tm__fail(TM_EXISTS, directory, NULL, "choose another name, or remove it yourself",
                           "holds no representation.json, so it is not replaced");
}

tm_status tm_representation_save(const tm_representation *r, const char *directory, bool overwrite,
                                 const tm_monitor *monitor) {
    tm__outdir out = {0};
    if (!r->finished) return tm__fail(TM_INVALID, NULL, NULL, NULL, "the result is not finished yet");
    if (overwrite) TM__TRY(check_replaced(directory));
    TM__TRY(tm__outdir_begin(&out, directory, overwrite));
    tm_status status = fill(r, out.aside, monitor);
    if (status == TM_OK) status = tm__outdir_commit(&out);
    tm__outdir_abandon(&out);
    return status;
}
