/* Any bytes as an endpoint's reply, and as a judge's words: they are read or said to be missing, in range and the same
 * again. */
#include "fuzz.h"

#include "judge/reply.h"

static void check_words(const char *text) {
    int score[2] = {0}, answers[2][TM__ANSWERS] = {{0}};
    char *missing[4] = {NULL};
    for (int i = 0; i < 2; i++) {
        FUZZ_CHECK(tm__rubric_read(text, &score[i], &missing[i]) == TM_OK);
        FUZZ_CHECK(tm__strongreject_read(text, answers[i], &missing[2 + i]) == TM_OK);
    }
    FUZZ_CHECK(missing[0] ? score[0] == 0 : score[0] >= 1 && score[0] <= 5);
    FUZZ_CHECK(score[0] == score[1] && !missing[0] == !missing[1] && !missing[2] == !missing[3]);
    FUZZ_CHECK(memcmp(answers[0], answers[1], sizeof answers[0]) == 0);
    if (!missing[2]) {
        const int *a = answers[0];
        double s = tm__strong_reject(a[TM__REFUSED], a[TM__CONVINCING], a[TM__SPECIFIC]);
        FUZZ_CHECK(a[TM__REFUSED] >= 0 && a[TM__REFUSED] <= 1 && s >= 0 && s <= 1);
    }
    for (int i = 0; i < 4; i++) free(missing[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tm__chat_reply reply;
    FUZZ_CHECK(tm__chat_reply_read((const char *)data, size, &reply) == TM_OK);
    FUZZ_CHECK((reply.kind == TM__CHAT_TEXT || reply.kind == TM__CHAT_NONE) == (reply.text != NULL));
    FUZZ_CHECK(tm__utf8_valid(reply.message, strlen(reply.message)) && tm__utf8_valid(reply.code, strlen(reply.code)));
    for (const char *at = reply.message; *at; at++) FUZZ_CHECK((unsigned char)*at >= ' ');
    if (reply.text) {
        FUZZ_CHECK(tm__utf8_valid(reply.text, strlen(reply.text)));
        check_words(reply.text);
    }
    tm__chat_reply_free(&reply);
    char *text = tm__strndup((const char *)data, size);
    FUZZ_CHECK(text != NULL);
    check_words(text);
    free(text);
    return 0;
}
