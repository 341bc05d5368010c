/* represent_plot.c: pictures of a comparison of hidden states, as commands for gnuplot.
 *
 * Panels of one layer share their ranges, so that what moved is seen to have moved; where every model has axes of its
 * own nothing is shared. Kinds differ in shape and in colour (blue and orange-red, which no common colour blindness
 * confuses). Pinned by tests/unit/test_represent.c.
 */
#include "lab/represent_plot.h"

#include <stdlib.h>

enum {
    COLUMNS = 6, /* panels across */
    LEFT = 96,   /* all in units of the SVG */
    TOP = 104,
    CELL_W = 216,
    CELL_H = 226,
    PANEL_W = 150,
    PANEL_H = 150
};

typedef struct figure {
    const tm_representation *r;
    tm__string text;
    bool ok; /* memory has sufficed */
    int64_t column[COLUMNS], columns;
    int width, height;
} figure;

static void put(figure *f, const char *format, ...) TM__PRINTF(2, 3);
static void put(figure *f, const char *format, ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    assert(len >= 0 && (size_t)len < sizeof line);
    f->ok = f->ok && tm__string_append(&f->text, line, (size_t)len);
}

static void put_quoted(figure *f, const char *text) {
    f->ok = f->ok && tm__plot_quote(&f->text, text);
}

/* ---- components -------------------------------------------------------------------------------------------------- */

static bool varies(const tm_representation *r, int64_t layer) {
    bool any = false;
    for (size_t m = 0; m < r->model_count; m++) any = any || r->models[m].layers[layer].explained[0] > 0;
    return any;
}

/* The states of a prompt's last token are all the same in the embedding: such a layer is no picture. */
static tm_status choose_columns(figure *f) {
    const tm_representation *r = f->r;
    int64_t *there = tm__alloc((size_t)r->layer_count, sizeof *there), n = 0;
    if (!there) return tm__fail_memory();
    for (int64_t l = 0; l < r->layer_count; l++)
        if (varies(r, l)) there[n++] = l;
    for (int64_t l = 0; n == 0 && l < r->layer_count; l++) there[n++] = l;
    f->columns = TM__MIN(n, (int64_t)COLUMNS);
    for (int64_t c = 0; c < f->columns; c++)
        f->column[c] = there[f->columns > 1 ? (c * (n - 1) * 2 + f->columns - 1) / (2 * (f->columns - 1)) : n - 1];
    free(there);
    return TM_OK;
}

static void put_points(figure *f, size_t model, int64_t column) {
    const tm_representation *r = f->r;
    const double *points = r->models[model].layers[f->column[column]].points;
    for (int kind = 0; kind < 2; kind++) {
        put(f, "$p%zu_%lld_%d << EOD\n", model, (long long)column, kind);
        for (size_t i = 0; i < r->count; i++)
            if (r->rows[i].harmful == (kind == 1))
                put(f, "%.6g %.6g\n", points[(int64_t)i * r->options.components],
                    points[(int64_t)i * r->options.components + 1]);
        put(f, "EOD\n");
    }
}

/* 1, 2 or 5 times a power of ten, so that about three fit into the range. */
static double tic_step(double range) {
    double power = pow(10, floor(log10(range / 3))), share = range / 3 / power;
    return power * (share >= 5 ? 5 : share >= 2 ? 2 : 1);
}

static void put_range(figure *f, size_t model, int64_t column, int axis) {
    const tm_representation *r = f->r;
    bool each = r->options.fit == TM_REPRESENT_FIT_EACH;
    double low = INFINITY, high = -INFINITY;
    for (size_t m = each ? model : 0; m < (each ? model + 1 : r->model_count); m++)
        for (size_t i = 0; i < r->count; i++) {
            double x = r->models[m].layers[f->column[column]].points[(int64_t)i * r->options.components + axis];
            low = fmin(low, x);
            high = fmax(high, x);
        }
    double room = high > low ? 0.07 * (high - low) : 1;
    char name = axis ? 'y' : 'x';
    put(f, "set %crange [%.6g:%.6g]\nset %ctics %.3g font ',11'\n", name, low - room, high + room, name,
        tic_step(high - low + 2 * room));
}

static void put_panel(figure *f, size_t model, int64_t column) {
    const tm_represent_layer *l = &f->r->models[model].layers[f->column[column]];
    double w = f->width, h = f->height, x = LEFT + (double)column * CELL_W, y = TOP + (double)model * CELL_H;
    put(f, "set lmargin at screen %.5f\nset rmargin at screen %.5f\n", x / w, (x + PANEL_W) / w);
    put(f, "set tmargin at screen %.5f\nset bmargin at screen %.5f\n", 1 - y / h, 1 - (y + PANEL_H) / h);
    put(f, "set title 'layer %lld, probe %.2f' offset 0,-0.6 font ',13' tc rgb ink\n", (long long)l->layer,
        l->accuracy.value);
    put(f, "set xlabel 'PC 1 (%.0f %%)' offset 0,0.6 font ',11' tc rgb ink\n", 100 * l->own[0]);
    put(f, "set ylabel 'PC 2 (%.0f %%)' offset 0.8,0 font ',11' tc rgb ink\n", 100 * l->own[1]);
    put_range(f, model, column, 0);
    put_range(f, model, column, 1);
    if (column == 0) {
        put(f, "set label 1 ");
        put_quoted(f, f->r->models[model].name);
        put(f, " at screen %.5f,%.5f center rotate by 90 font ',14' tc rgb ink\n", 20 / w, 1 - (y + PANEL_H / 2.0) / h);
    }
    put(f,
        "plot $p%zu_%lld_0 using 1:2 with points pt 6 ps 0.7 lw 1.3 lc rgb c0 title 'harmless', "
        "$p%zu_%lld_1 using 1:2 with points pt 2 ps 0.6 lw 1.3 lc rgb c1 title 'harmful'\n",
        model, (long long)column, model, (long long)column);
    put(f, "unset key\nunset label 1\nunset label 2\nunset label 3\n");
}

static void put_heading(figure *f) {
    static const char *const places[] = {"at the last token of the prompt", "averaged over the prompt",
                                         "averaged over the answer"};
    const tm_representation *r = f->r;
    double w = f->width, h = f->height;
    put(f, "set label 2 'Hidden states %s: principal components' at screen %.5f,%.5f left font ',16' tc rgb ink\n",
        places[r->options.position], 12 / w, 1 - 24 / h);
    put(f, "set label 3 ");
    tm__string axes = {0};
    bool ok = r->options.fit == TM_REPRESENT_FIT_UNION  ? tm__string_printf(&axes, "Axes of all models together")
              : r->options.fit == TM_REPRESENT_FIT_EACH ? tm__string_printf(&axes, "Axes of each model by itself")
                                                        : tm__string_printf(&axes, "Axes of %s", r->models[0].name);
    ok = ok && tm__string_printf(&axes, "; in brackets, the share of the model's own variance along them");
    f->ok = f->ok && ok;
    put_quoted(f, f->ok ? axes.data : "");
    tm__string_free(&axes);
    put(f, " at screen %.5f,%.5f left font ',12' tc rgb ink\n", 12 / w, 1 - 46 / h);
    put(f, "set key at screen %.5f,%.5f right top horizontal reverse Left samplen 1 font ',13' tc rgb ink\n",
        1 - 12 / w, 1 - 14 / h);
}

tm_status tm__represent_plot_components(const tm_representation *r, const char *path) {
    figure f = {.r = r, .ok = true};
    TM__TRY(choose_columns(&f));
    f.width = TM__MAX(LEFT + (int)f.columns * CELL_W - 20, 720);
    f.height = TOP + (int)r->model_count * CELL_H - 10;
    for (size_t m = 0; m < r->model_count; m++)
        for (int64_t c = 0; c < f.columns; c++) put_points(&f, m, c);
    put(&f, "set multiplot\nset border 3 lc rgb ink\nset tics nomirror tc rgb ink\nset format '%%g'\n");
    put_heading(&f);
    for (size_t m = 0; m < r->model_count; m++)
        for (int64_t c = 0; c < f.columns; c++) put_panel(&f, m, c);
    put(&f, "unset multiplot\n");
    tm_status status = f.ok ? tm__plot_script(f.text.data, f.width, f.height, path) : tm__fail_memory();
    tm__string_free(&f.text);
    return status;
}

/* ---- probe ------------------------------------------------------------------------------------------------------- */

/* Models stand beside each other at a layer, so that their intervals can be told apart. */
static void put_accuracies(figure *f, size_t model) {
    const tm_representation *r = f->r;
    double beside = ((double)model - ((double)r->model_count - 1) / 2) * 0.08;
    put(f, "$a%zu << EOD\n", model);
    for (int64_t i = 0; i < r->layer_count; i++) {
        const tm_represent_layer *l = &r->models[model].layers[i];
        put(f, "%.6g %.6g %.6g %.6g %.6g\n", (double)l->layer + beside, l->accuracy.value, l->accuracy.low,
            l->accuracy.high, l->control);
    }
    put(f, "EOD\n");
}

static double chance(const tm_representation *r) {
    double test = 0, harmful = 0;
    for (size_t i = 0; i < r->count; i++) {
        test += !r->rows[i].train;
        harmful += !r->rows[i].train && r->rows[i].harmful;
    }
    return fmax(harmful, test - harmful) / test;
}

tm_status tm__represent_plot_probe(const tm_representation *r, const char *path) {
    static const int shapes[] = {7, 5, 9, 11, 13, 6, 4, 8};
    figure f = {.r = r, .ok = true};
    int64_t first = r->layers[0], last = r->layers[r->layer_count - 1];
    for (size_t m = 0; m < r->model_count; m++) put_accuracies(&f, m);
    put(&f, "set border 3 lc rgb ink\nset tics nomirror tc rgb ink\nset key outside right top reverse Left samplen 2 "
            "tc rgb ink\n");
    put(&f,
        "set title 'Linear probe: harmful or harmless? Accuracy on the %zu rows held out, 95 %% intervals' tc rgb "
        "ink\n",
        r->count - r->train);
    put(&f, "set xlabel 'layer' tc rgb ink\nset ylabel 'accuracy' tc rgb ink\nset yrange [0:1.04]\n");
    put(&f, "set ytics 0.2\nset xrange [%.6g:%.6g]\n", (double)first - 0.5, (double)last + 0.5);
    put(&f, "set xtics %lld\n", (long long)TM__MAX((last - first) / 12, (int64_t)1));
    put(&f, "plot %.6g with lines lw 1 dt 3 lc rgb ink title 'chance'", chance(r));
    for (size_t m = 0; m < r->model_count; m++) {
        put(&f, ", \\\n     $a%zu using 1:2:3:4 with yerrorlines pt %d ps 0.9 lw 2 lc rgb c%zu title ", m,
            shapes[m % TM__COUNT(shapes)], m % TM__COUNT(shapes));
        put_quoted(&f, r->models[m].name);
        put(&f, ", \\\n     $a%zu using 1:5 with lines lw 1 dt 2 lc rgb c%zu title '  shuffled labels'", m,
            m % TM__COUNT(shapes));
    }
    put(&f, "\n");
    tm_status status = f.ok ? tm__plot_script(f.text.data, 920, 460, path) : tm__fail_memory();
    tm__string_free(&f.text);
    return status;
}
