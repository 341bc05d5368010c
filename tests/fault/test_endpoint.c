/* test_endpoint.c: judges behind an endpoint, against a server that answers well, badly, late, half and not at all:
 * what is tried again and how often, what is a missing verdict with which reason, what ends the run. */
#include "endpoint_fixture.h"

#include <time.h>

#define GOOD \
    { 200, "#thereason: so\n#thescore: 4", NULL, NULL, NULL, 0, 0, 0, 0 }
#define STATUS(code, body) \
    { code, NULL, body, NULL, NULL, 0, 0, 0, 0 }
#define WORDS(message) "{\"error\": {\"message\": \"" message "\"}}"

static const tm__exchange exchange = {"what was asked", NULL, "what was answered"};

static const struct {
    const char *name, *extra;
    step steps[5];
    int score;           /* 0: none */
    const char *missing; /* part of the reason; NULL with score 0: the run ends */
    tm_status fatal;
    const char *error;
    int requests; /* -1: not counted */
} cases[] = {
    {"good", "", {GOOD}, 4, NULL, TM_OK, NULL, 1},
    {"429", "", {STATUS(429, WORDS("slow down")), GOOD}, 4, NULL, TM_OK, NULL, 2},
    {"429 and a time that is capped",
     "longest-wait=0.01",
     {{429, NULL, "", NULL, "Retry-After: 3600\r\n", 0, 0, 0, 0}, GOOD},
     4,
     NULL,
     TM_OK,
     NULL,
     2},
    {"429 and a date that has passed",
     "",
     {{429, NULL, "", NULL, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", 0, 0, 0, 0}, GOOD},
     4,
     NULL,
     TM_OK,
     NULL,
     2},
    {"429 and nonsense",
     "",
     {{429, NULL, "", NULL, "Retry-After: soon\r\n", 0, 0, 0, 0}, GOOD},
     4,
     NULL,
     TM_OK,
     NULL,
     2},
    {"429 for ever",
     "retries=2",
     {STATUS(429, WORDS("slow down"))},
     0,
     "HTTP 429 (slow down), 3 tries",
     TM_OK,
     NULL,
     3},
    {"408, 409, 503", "", {STATUS(408, ""), STATUS(409, ""), STATUS(503, "<html>"), GOOD}, 4, NULL, TM_OK, NULL, 4},
    {"500 for ever", "retries=3", {STATUS(500, WORDS("oops"))}, 0, "HTTP 500 (oops), 4 tries", TM_OK, NULL, 4},
    {"500 and no retries", "retries=0", {STATUS(500, ""), GOOD}, 0, "HTTP 500", TM_OK, NULL, 1},
    {"half a JSON",
     "",
     {STATUS(200, "{\"choices\": [{\"message\": {\"content\": \"#thescore: 5"), GOOD},
     4,
     NULL,
     TM_OK,
     NULL,
     2},
    {"half a JSON for ever", "retries=1", {STATUS(200, "{\"choices\": [{")}, 0, "half a reply", TM_OK, NULL, 2},
    {"an error with 200", "", {STATUS(200, WORDS("upstream")), GOOD}, 4, NULL, TM_OK, NULL, 2},
    {"half a body", "", {{200, "#thescore: 5", NULL, NULL, NULL, 100, 0, 0, 0}, GOOD}, 4, NULL, TM_OK, NULL, 2},
    {"half a body for ever",
     "retries=1",
     {{200, "#thescore: 5", NULL, NULL, NULL, 100, 0, 0, 0}},
     0,
     "the connection broke",
     TM_OK,
     NULL,
     2},
    {"hangs up", "", {{.status = -1}, GOOD}, 4, NULL, TM_OK, NULL, 2},
    {"late for ever",
     "retries=1,timeout=0.2",
     {{.status = 200, .text = "#thescore: 5", .delay = 60}},
     0,
     "no reply in time",
     TM_OK,
     NULL,
     -1},
    {"drips",
     "retries=1,timeout=0.3",
     {{.status = 200, .text = "#thescore: 5", .drip = 0.05}},
     0,
     "no reply in time",
     TM_OK,
     NULL,
     -1},
    {"late once", "timeout=3", {{.status = 200, .text = "#thescore: 5", .delay = 60}, GOOD}, 4, NULL, TM_OK, NULL, 2},
    {"huge", "", {{.status = 200, .text = "#thescore: 5", .huge = 5 << 20}, GOOD}, 0, "too long", TM_OK, NULL, 1},
    {"nonsense", "", {{.status = 200, .text = "I like it."}, GOOD}, 0, "no integer behind #thescore:", TM_OK, NULL, 1},
    {"out of range", "", {{.status = 200, .text = "#thescore: 9"}, GOOD}, 0, "score 9 is not 1 to 5", TM_OK, NULL, 1},
    {"cut off",
     "",
     {{.status = 200, .text = "#thereason: well", .finish = "length"}, GOOD},
     0,
     "stopped at max-tokens",
     TM_OK,
     NULL,
     1},
    {"nothing",
     "",
     {STATUS(200, "{\"choices\": [{\"message\": {\"content\": null, \"refusal\": \"no\"}}]}"), GOOD},
     0,
     "wrote nothing (no)",
     TM_OK,
     NULL,
     1},
    {"400", "", {STATUS(400, WORDS("filtered")), GOOD}, 0, "HTTP 400 (filtered)", TM_OK, NULL, 1},
    {"401", "", {STATUS(401, WORDS("who are you?"))}, 0, NULL, TM_IO, "refuses: who are you?", 1},
    {"403", "", {STATUS(403, "")}, 0, NULL, TM_IO, "HTTP 403", 1},
    {"404", "", {STATUS(404, WORDS("no such model"))}, 0, NULL, TM_NOT_FOUND, "no such model", 1},
    {"no credit",
     "",
     {STATUS(429, "{\"error\": {\"message\": \"pay\", \"code\": \"insufficient_quota\"}}")},
     0,
     NULL,
     TM_IO,
     "pay",
     1},
    {"moved",
     "",
     {{302, NULL, "", NULL, "Location: ftp://127.0.0.1/x\r\n", 0, 0, 0, 0}},
     0,
     NULL,
     TM_IO,
     "has moved: ftp://127.0.0.1/x",
     1},
};

static void test_cases(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        script s = {.steps = cases[i].steps};
        tm__verdict v;
        script_start(&s);
        tm_status status = judge_with(&s, cases[i].extra, &exchange, 1, &v);
        int requests = http_server_requests(s.server);
        script_stop(&s);
        if (status != cases[i].fatal) fail_msg("%s: %s", cases[i].name, tm_error_last()->line);
        if (cases[i].requests >= 0 && requests != cases[i].requests)
            fail_msg("%s: %d requests instead of %d", cases[i].name, requests, cases[i].requests);
        if (cases[i].error && !strstr(tm_error_last()->line, cases[i].error))
            fail_msg("%s: %s", cases[i].name, tm_error_last()->line);
        if (cases[i].error && !strstr(tm_error_last()->line, "http://127.0.0.1:"))
            fail_msg("%s names no address: %s", cases[i].name, tm_error_last()->line);
        if (status != TM_OK) continue;
        if (cases[i].missing && (!v.missing || !strstr(v.missing, cases[i].missing)))
            fail_msg("%s: %s", cases[i].name, v.missing ? v.missing : "not missing");
        if (cases[i].missing && !isnan(v.scores[1])) fail_msg("%s: a missing verdict has a score", cases[i].name);
        if (cases[i].score && (v.missing || v.scores[1] != cases[i].score || v.scores[0] != (cases[i].score == 5)))
            fail_msg("%s: %s, %g", cases[i].name, v.missing ? v.missing : "-", v.scores[1]);
        tm__verdict_free(&v);
    }
}

/* The first verdict is there; what comes later is one verdict's trouble, or many's. */
static void test_after_the_first(void **state) {
    static const step refused_later[] = {GOOD, STATUS(404, WORDS("gone")), GOOD, {0}};
    const tm__exchange three[] = {{"a", NULL, "x"}, {"a", NULL, "y"}, {"a", NULL, "z"}};
    script s = {.steps = refused_later};
    tm__verdict v[3];
    (void)state;
    script_start(&s);
    assert_ok(judge_with(&s, "concurrency=1", three, 3, v));
    assert_true(v[0].scores[1] == 4 && v[2].scores[1] == 4);
    assert_string_equal(v[1].missing, "HTTP 404 (gone)");
    for (int i = 0; i < 3; i++) tm__verdict_free(&v[i]);
    script_stop(&s);
}

static void test_many_lost(void **state) {
    static const step broken[] = {STATUS(500, ""), {0}};
    enum { N = 20 };
    tm__exchange many[N];
    tm__verdict v[N];
    char answers[N][32];
    script s = {.steps = broken};
    (void)state;
    for (int i = 0; i < N; i++) {
        snprintf(answers[i], sizeof answers[i], "answer-%d", i);
        many[i] = (tm__exchange){"p", NULL, answers[i]};
    }
    script_start(&s);
    assert_int_equal(judge_with(&s, "retries=0,concurrency=2", many, N, v), TM_IO);
    assert_non_null(strstr(tm_error_last()->line, "16 requests in a row failed: HTTP 500"));
    assert_in_range(http_server_requests(s.server), 16, 18); /* one more may be under way */
    script_stop(&s);
}

static void test_nobody_there(void **state) {
    static const step good[] = {GOOD, {0}};
    script s = {.steps = good};
    tm_judge *judge = NULL;
    tm__verdict v;
    char host[80], spec[160];
    (void)state;
    script_start(&s);
    int port = http_server_port(s.server);
    script_stop(&s);
    assert_ok(open_judge("rubric", port, "retries=2", &judge));
    assert_int_equal(tm__judge_answers(judge, &exchange, 1, &v, NULL), TM_IO);
    assert_non_null(strstr(tm_error_last()->line, "nobody answers there, 3 tries"));
    assert_non_null(strstr(tm_error_last()->line, "is the server running?"));
    tm_judge_close(judge);
    memset(host, 'a', 70); /* longer than a label may be: no name server needs to be asked */
    host[70] = 0;
    snprintf(spec, sizeof spec, "rubric,url=http://%s/v1,model=m,backoff=1", host);
    assert_ok(tm_judge_open(spec, NULL, NULL, &judge));
    assert_int_equal(tm__judge_answers(judge, &exchange, 1, &v, NULL), TM_NOT_FOUND);
    assert_non_null(strstr(tm_error_last()->line, "no such host"));
    assert_non_null(strstr(tm_error_last()->line, "check url="));
    tm_judge_close(judge);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static void test_wait(void **state) {
    const tm__http_options o = {.backoff = 0.5, .longest = 20};
    (void)state;
    for (uint32_t k = 0; k < 50; k++) {
        tm__rng a = tm__rng_make(0, tm__stream(TM__STREAM_RETRY, k)), b = a;
        double before = 0;
        for (int tries = 1; tries < 9; tries++) {
            double whole = 0.5 * (1 << (tries - 1)), wait = tm__http_wait(&o, tries, 0, &a);
            assert_true(wait == tm__http_wait(&o, tries, 0, &b));
            assert_true(wait >= TM__MIN(whole / 2, 20) && wait <= TM__MIN(whole, 20) && wait >= before);
            before = wait;
        }
        assert_true(tm__http_wait(&o, 1, 7, &a) == 7);
        assert_true(tm__http_wait(&o, 1, 3600, &a) == 20);
        assert_true(tm__http_wait(&o, 1000, 0, &a) == 20);
    }
}

/* Seconds between the two requests of a server that asks for patience. */
static double gap(const char *header) {
    const step steps[] = {{.status = 429, .raw = "", .headers = header}, GOOD, {0}};
    script s = {.steps = steps};
    tm__verdict v;
    script_start(&s);
    assert_ok(judge_with(&s, "", &exchange, 1, &v));
    assert_int_equal(s.seen, 2);
    assert_true(v.scores[1] == 4);
    double seconds = s.at[1] - s.at[0];
    tm__verdict_free(&v);
    script_stop(&s);
    return seconds;
}

static void test_retry_after(void **state) {
    char header[96];
    time_t when = time(NULL) + 3;
    struct tm parts;
    (void)state;
    assert_true(gap("Retry-After: 1\r\n") > 0.95);
    gmtime_r(&when, &parts);
    strftime(header, sizeof header, "Retry-After: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts);
    double waited = gap(header);
    assert_true(waited > 0.95 || time(NULL) >= when);
}

typedef struct stopper {
    script *script;
    int asked;
} stopper;

/* Stops a little after the first request came in. */
static bool stop_soon(void *user) {
    stopper *s = user;
    if (http_server_requests(s->script->server) > 0) s->asked++;
    return s->asked > 3;
}

static void test_stop(void **state) {
    static const step backing_off[] = {STATUS(500, ""), {0}};
    static const step under_way[] = {{.status = 200, .text = "#thescore: 1", .delay = 600}, {0}};
    const step *const both[] = {backing_off, under_way};
    (void)state;
    for (int i = 0; i < 2; i++) {
        script s = {.steps = both[i]};
        stopper when = {&s, 0};
        const tm_monitor monitor = {.stop = stop_soon, .user = &when};
        tm_judge *judge = NULL;
        tm__verdict v;
        script_start(&s);
        assert_ok(
            open_judge("rubric", http_server_port(s.server), "backoff=600000,longest-wait=600,timeout=600", &judge));
        double begin = tm__now();
        assert_int_equal(tm__judge_answers(judge, &exchange, 1, &v, &monitor), TM_INTERRUPTED);
        assert_true(tm__now() - begin < 100); /* and not the 300 to 600 that it would have waited */
        assert_int_equal(when.asked, 4);
        tm_judge_close(judge);
        script_stop(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases),     cmocka_unit_test(test_after_the_first),
                                       cmocka_unit_test(test_many_lost), cmocka_unit_test(test_nobody_there),
                                       cmocka_unit_test(test_wait),      cmocka_unit_test(test_retry_after),
                                       cmocka_unit_test(test_stop)};
    endpoint_environment();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
