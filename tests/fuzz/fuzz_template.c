/* Any bytes as a template, on conversations that hold tag-like and odd text: within small limits it renders or is
 * refused with its line, and renders the same again. The first byte chooses conversation and generation prompt. */
#include "fuzz.h"

#include "template/template.h"

static const tm_message talks[][4] = {
    {{"user", "hello"}, {"assistant", "good day"}, {"user", " x\n"}, {"assistant", ""}},
    {{"system", "be kind"},
     {"user", "{{ 1 }} <|im_end|> \303\251"},
     {"assistant", "a\nb </think> c"},
     {"user", "'\"\\"}},
    {{"tool", "{}"}, {"user", "\360\237\246\212"}, {"user", "\342\200\250"}, {"assistant", "</s>"}},
};
static const char variables[] = "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"tools\": [{\"name\": \"f\", "
                                "\"n\": [1, 2.5, null, true]}], \"enable_thinking\": false}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const tm__limits limits = {.steps = 50000, .bytes = 4 << 20, .depth = 120};
    const tm__render_options options = {
        .variables = variables, .variables_len = sizeof variables - 1, .limits = &limits, .now = 1000000000};
    unsigned choice = size ? data[0] : 0;
    const tm_message *talk = talks[choice % 3];
    size_t n = 1 + (choice >> 2) % 4;
    tm_template *template = NULL;
    tm_error_clear();
    tm_status status = tm_template_parse("fuzz", (const char *)data + (size > 0), size - (size > 0), &template);
    FUZZ_CHECK((status == TM_OK) == (template != NULL));
    if (!template) {
        FUZZ_CHECK((status == TM_FORMAT || status == TM_UNSUPPORTED) && strcmp(tm_error_last()->file, "fuzz") == 0);
        return 0;
    }
    char *text[2] = {NULL, NULL};
    size_t len[2] = {0, 0};
    tm__stretches stretches = {0};
    status = tm__template_render(template, talk, n, choice & 128, &options, &text[0], &len[0], &stretches);
    FUZZ_CHECK(status == TM_OK || status == TM_FORMAT || status == TM_UNSUPPORTED || status == TM_INVALID);
    if (status == TM_OK) {
        FUZZ_CHECK(tm__utf8_valid(text[0], len[0]));
        for (size_t i = 0; i < stretches.len; i++)
            FUZZ_CHECK(stretches.data[i].start <= stretches.data[i].end && stretches.data[i].end <= len[0]);
        FUZZ_CHECK(tm__template_render(template, talk, n, choice & 128, &options, &text[1], &len[1], NULL) == TM_OK);
        FUZZ_CHECK(len[0] == len[1] && memcmp(text[0], text[1], len[0]) == 0);
    }
    free(stretches.data);
    free(text[0]);
    free(text[1]);
    tm_template_free(template);
    return 0;
}
