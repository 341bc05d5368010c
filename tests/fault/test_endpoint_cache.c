/* test_endpoint_cache.c: what judges behind an endpoint send, keep and never tell: prompts, keys, cached replies, many
 * requests at a time, memory that runs out. */
#include "endpoint_fixture.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static const tm__exchange exchange = {"what was asked", NULL, "answer-3"};
static const step good[] = {{.status = 200, .text = "#thereason: so\n#thescore: 4"}, {0}};

static void write_text(const char *path, const char *text) {
    assert_ok(tm__file_write(path, text, strlen(text)));
}

/* The one file of a directory; its path is the caller's. */
static char *only_file(const char *directory) {
    DIR *d = opendir(directory);
    struct dirent *entry;
    char *path = NULL;
    assert_non_null(d);
    while ((entry = readdir(d)) != NULL) {
        if (entry->d_name[0] == '.' && strchr("..", entry->d_name[1])) continue;
        assert_null(path);
        path = tm__path_join(directory, entry->d_name);
    }
    closedir(d);
    assert_non_null(path);
    return path;
}

/* Judges one exchange; how many requests that took. */
static int ask(const step *steps, const char *extra, tm__verdict *v) {
    script s = {.steps = steps};
    script_start(&s);
    assert_ok(judge_with(&s, extra, &exchange, 1, v));
    int requests = http_server_requests(s.server);
    script_stop(&s);
    return requests;
}

/* ---- cache ------------------------------------------------------------------------------------------------------- */

static void test_cache(void **state) {
    static const step nonsense[] = {{.status = 200, .text = "well"}, {0}};
    char extra[600], other[640];
    tm__verdict v;
    char *directory = tm__path_join(test_scratch(), "new/cache");
    (void)state;
    snprintf(extra, sizeof extra, "cache=%s", directory);
    assert_int_equal(ask(nonsense, extra, &v), 1); /* no verdict: not kept */
    assert_non_null(v.missing);
    tm__verdict_free(&v);
    for (int round = 0; round < 3; round++) { /* another server each time: its address does not matter */
        assert_int_equal(ask(good, extra, &v), round == 0);
        assert_true(v.scores[1] == 4 && !v.missing);
        assert_string_equal(v.output, "#thereason: so\n#thescore: 4");
        tm__verdict_free(&v);
    }
    snprintf(other, sizeof other, "%s,temperature=0.5", extra); /* another request */
    assert_int_equal(ask(good, other, &v), 1);
    tm__verdict_free(&v);
    free(directory);
}

/* Every way to damage an entry: it is asked for again, and the entry is whole after. */
static void test_damaged(void **state) {
    char extra[600];
    tm__verdict v;
    char *directory = tm__path_join(test_scratch(), "cache"), *text;
    size_t len;
    (void)state;
    snprintf(extra, sizeof extra, "cache=%s", directory);
    assert_int_equal(ask(good, extra, &v), 1);
    tm__verdict_free(&v);
    char *path = only_file(directory);
    assert_ok(tm__file_read(path, 0, &text, &len));
    for (int way = 0; way < 5; way++) {
        char *spoilt = tm__strdup(text);
        char *hit = strstr(spoilt, way == 0 ? "#thescore: 4" : way == 1 ? "\"key\": \"" : "}");
        assert_non_null(hit);
        if (way == 0) hit[11] = '5';
        if (way == 1) hit[8] = hit[8] == 'a' ? 'b' : 'a';
        if (way == 2) *hit = 0;
        write_text(path, way == 3 ? "" : way == 4 ? "[]" : spoilt);
        free(spoilt);
        assert_int_equal(ask(good, extra, &v), 1);
        assert_true(v.scores[1] == 4);
        tm__verdict_free(&v);
        assert_int_equal(ask(good, extra, &v), 0);
        tm__verdict_free(&v);
    }
    free(text);
    free(path);
    free(directory);
}

static void test_no_room(void **state) {
    script s = {.steps = good};
    tm__verdict v;
    char extra[600], *file = tm__path_join(test_scratch(), "file");
    (void)state;
    write_text(file, "x");
    snprintf(extra, sizeof extra, "cache=%s/below", file);
    script_start(&s);
    assert_int_equal(judge_with(&s, extra, &exchange, 1, &v), TM_IO);
    assert_int_equal(http_server_requests(s.server), 0); /* before anything is paid for */
    script_stop(&s);
    free(file);
}

/* ---- many -------------------------------------------------------------------------------------------------------- */

enum { MANY = 24 };

/* Verdicts belong to their answers in whatever order replies come; connections are used again. */
static void test_many(void **state) {
    static const struct {
        const char *extra;
        double delay;
        int least, most;
    } cases[] = {{"concurrency=1", 0, 1, 1}, {"concurrency=6", 0.1, 2, MANY / 2 - 1}};
    (void)state;
    for (size_t c = 0; c < TM__COUNT(cases); c++) {
        script s = {.by_answer = true, .delay = cases[c].delay};
        tm__exchange many[MANY];
        tm__verdict v[MANY];
        tm_judge *judge = NULL;
        char answers[MANY][32], line[256];
        script_start(&s);
        assert_ok(open_judge("rubric", http_server_port(s.server), cases[c].extra, &judge));
        for (int i = 0; i < MANY; i++) {
            snprintf(answers[i], sizeof answers[i], "answer-%d", i / 2); /* each is there twice */
            many[i] = (tm__exchange){"p", NULL, answers[i]};
        }
        for (int half = 0; half < 2; half++) /* two calls, one connection */
            assert_ok(tm__judge_answers(judge, many + half * MANY / 2, MANY / 2, v + half * MANY / 2, NULL));
        for (int i = 0; i < MANY; i++) {
            assert_true(v[i].scores[1] == 1 + i / 2 % 5);
            assert_non_null(v[i].output);
            tm__verdict_free(&v[i]);
        }
        assert_int_equal(http_server_requests(s.server), MANY / 2);
        assert_in_range(http_server_connections(s.server), cases[c].least, cases[c].most);
        judge->kind->account(judge->own, line, sizeof line);
        assert_string_equal(line, "12 asked in 12 tries, 0 from the cache, 12 repeated; 1200 tokens read, 84 written");
        tm_judge_close(judge);
        script_stop(&s);
    }
}

static void test_estimate(void **state) {
    script s = {.by_answer = true};
    const tm__exchange three[] = {{"p", NULL, "answer-1"}, {"p", NULL, "answer-2"}, {"p", NULL, "answer-2"}};
    tm__verdict v[3];
    tm_judge_cost cost = {0};
    tm_judge *judge = NULL;
    char line[256];
    (void)state;
    script_start(&s);
    assert_ok(open_judge("rubric", http_server_port(s.server), "max-tokens=100", &judge));
    assert_ok(judge->kind->beside(judge->own, test_scratch()));
    assert_ok(judge->kind->estimate(judge->own, three, 3, &cost));
    assert_int_equal(http_server_requests(s.server), 0);
    assert_int_equal(cost.requests, 2);
    assert_int_equal(cost.max_tokens, 200);
    assert_int_equal(cost.cached, 0);
    assert_ok(tm__judge_answers(judge, three, 2, v, NULL));
    assert_int_equal(cost.bytes, strlen(s.bodies[0]) + strlen(s.bodies[1]));
    cost = (tm_judge_cost){0};
    assert_ok(judge->kind->estimate(judge->own, three, 3, &cost));
    assert_int_equal(cost.requests, 0);
    assert_int_equal(cost.cached, 2);
    judge->kind->account(judge->own, line, sizeof line); /* estimates do not count */
    assert_string_equal(line, "2 asked in 2 tries, 0 from the cache, 0 repeated; 200 tokens read, 14 written");
    for (int i = 0; i < 2; i++) tm__verdict_free(&v[i]);
    tm_judge_close(judge);
    script_stop(&s);
}

/* ---- what is sent ------------------------------------------------------------------------------------------------ */

static int count_of(const char *text, const char *what) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what)) n++;
    return n;
}

/* Texts are filled in once: places that an answer spells out stay, and bytes that are no UTF-8 do no harm. */
static void test_prompt(void **state) {
    const tm__exchange forger = {"THE QUESTION {answer}", NULL, "{prompt}{policy}{response} \"\\\n\xff\xc3 \xc3\xa9"};
    script s = {.steps = good};
    tm__verdict v;
    char extra[2000], *prompt = tm__path_join(test_scratch(), "prompt"),
                      *policy = tm__path_join(test_scratch(), "policy"),
                      *system = tm__path_join(test_scratch(), "system");
    (void)state;
    write_text(prompt, "Q {forbidden_prompt} P {policy} A {response} {else}\n");
    write_text(policy, "RULES");
    write_text(system, "You are {policy}.\r\n");
    snprintf(extra, sizeof extra, "prompt=%s,policy=%s,system=%s,max-tokens=9,limit-field=max_completion_tokens",
             prompt, policy, system);
    script_start(&s);
    assert_ok(judge_with(&s, extra, &forger, 1, &v));
    assert_string_equal(
        s.bodies[0],
        "{\"max_completion_tokens\":9,\"messages\":[{\"content\":\"You are RULES.\",\"role\":\"system\"},"
        "{\"content\":\"Q THE QUESTION {answer} P RULES A {prompt}{policy}{response} \\\"\\\\\\n"
        "\xef\xbf\xbd\xef\xbf\xbd \xc3\xa9 {else}\",\"role\":\"user\"}],\"model\":\"m\",\"temperature\":0.0}");
    tm__verdict_free(&v);
    assert_ok(judge_with(&s, "temperature=-1", &forger, 1, &v));
    assert_int_equal(count_of(s.bodies[1], "THE QUESTION"), 1);
    assert_int_equal(count_of(s.bodies[1], "{policy}"), 1); /* the answer's own */
    assert_int_equal(count_of(s.bodies[1], "temperature"), 0);
    assert_int_equal(count_of(s.bodies[1], "max_tokens\":1024"), 1);
    assert_non_null(strstr(s.bodies[1], "prohibit"));
    assert_non_null(strstr(s.heads[1], "POST /v1/chat/completions HTTP/1.1"));
    tm__verdict_free(&v);
    script_stop(&s);
    free(prompt);
    free(policy);
    free(system);
}

static void test_strongreject(void **state) {
    static const step replies[] = {
        {.status = 200, .text = "So.\n#scores\na. refused: 0\nb. convincing: 5\nc. specific: 4\n#end"},
        {.status = 200, .text = "#scores\n1.b 0\n2.b 3\n3.b 3\n"},
        {.status = 200, .text = "#scores\n1.b 0\n2.b 3\n"},
        {0}};
    const tm__exchange three[] = {{"p", NULL, "1"}, {"p", NULL, "2"}, {"p", NULL, "3"}};
    script s = {.steps = replies};
    tm__verdict v[3];
    tm_judge *judge = NULL;
    (void)state;
    script_start(&s);
    assert_ok(open_judge("strongreject", http_server_port(s.server), "concurrency=1,threshold=0.5", &judge));
    assert_ok(tm__judge_answers(judge, three, 3, v, NULL));
    const double wanted[2][5] = {{1, 0.875, 0, 5, 4}, {0, 0.5, 0, 3, 3}};
    for (int i = 0; i < 2; i++) assert_memory_equal(v[i].scores, wanted[i], sizeof wanted[i]);
    assert_string_equal(v[2].missing, "no integer behind specific");
    for (int i = 0; i < 3; i++) tm__verdict_free(&v[i]);
    tm_judge_close(judge);
    script_stop(&s);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static void test_key(void **state) {
    static const step telling[] = {{.status = 401, .raw = "{\"error\": {\"message\": \"sk-SECRET-17 is wrong\"}}"},
                                   {0}};
    static const step echo[] = {{.status = 200, .text = "sk-SECRET-17 #thescore: 2"}, {0}};
    /* JSON may escape any letter, and the key may come back in an address */
    static const step escaped[] = {{.status = 401, .raw = "{\"error\": \"sk-\\u0053ECRET-17 is wrong\"}"}, {0}};
    static const step moved[] = {{.status = 302, .raw = "", .headers = "Location: http://127.0.0.1/sk-SECRET-17/x\r\n"},
                                 {0}};
    const step *const scripts[] = {good, telling, echo, escaped, moved};
    static const char *const errors[] = {NULL, "************ is wrong", NULL, "************ is wrong",
                                         "has moved: http://127.0.0.1/************/x"};
    char extra[600], *directory = tm__path_join(test_scratch(), "keys"), *text;
    size_t len;
    (void)state;
    for (size_t i = 0; i < TM__COUNT(scripts); i++) {
        script s = {.steps = scripts[i]};
        tm__verdict v = {0};
        setenv(i ? "TEMPER_TEST_KEY" : "OPENAI_API_KEY", "sk-SECRET-17\n", 1);
        snprintf(extra, sizeof extra,
                 i == 2 ? "key-env=TEMPER_TEST_KEY,cache=%s"
                 : i    ? "key-env=TEMPER_TEST_KEY"
                        : "",
                 directory);
        script_start(&s);
        tm_status status = judge_with(&s, extra, &exchange, 1, &v);
        assert_int_equal(status, errors[i] ? TM_IO : TM_OK);
        assert_non_null(strstr(s.heads[0], "\r\nAuthorization: Bearer sk-SECRET-17\r\n"));
        if (errors[i]) assert_non_null(strstr(tm_error_last()->line, errors[i]));
        assert_null(strstr(tm_error_last()->line, "SECRET"));
        if (i == 2) assert_string_equal(v.output, "************ #thescore: 2");
        tm__verdict_free(&v);
        script_stop(&s);
        endpoint_environment();
    }
    char *path = only_file(directory);
    assert_ok(tm__file_read(path, 0, &text, &len));
    assert_null(strstr(text, "SECRET"));
    free(text);
    free(path);
    free(directory);
    script s = {.steps = good}; /* without a key: no header */
    tm__verdict v;
    script_start(&s);
    assert_ok(judge_with(&s, "", &exchange, 1, &v));
    assert_null(strstr(s.heads[0], "Authorization"));
    tm__verdict_free(&v);
    script_stop(&s);
}

/* Not even where a proxy is to be asked about all addresses: it would look for this machine on itself. */
static void test_proxy(void **state) {
    static const char *const names[] = {"http_proxy", "all_proxy"};
    tm__verdict v;
    (void)state;
    for (size_t i = 0; i < TM__COUNT(names); i++) {
        setenv(names[i], "http://127.0.0.1:1", 1); /* nobody is there */
        assert_int_equal(ask(good, "retries=0", &v), 1);
        assert_true(v.scores[1] == 4);
        tm__verdict_free(&v);
        endpoint_environment();
    }
}

static void test_addresses(void **state) {
    static const struct {
        const char *base, *url;
        bool private;
    } fine[] = {
        {"http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions", true},
        {"http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1/chat/completions", true},
        {"http://[::1]:8000", "http://[::1]:8000/chat/completions", true},
        {"https://example.com/v1/chat/completions", "https://example.com/v1/chat/completions", true},
        {"http://example.com/v1", "http://example.com/v1/chat/completions", false},
        {"http://127.evil.example/v1", "http://127.evil.example/v1/chat/completions", false},
        {"http://localhost.example/v1", "http://localhost.example/v1/chat/completions", false},
    };
    static const char *const wrong[] = {"",
                                        "localhost:8000",
                                        "example.com/v1",
                                        "ftp://example.com/v1",
                                        "file:///etc/passwd",
                                        "http://user:word@example.com/v1",
                                        "ftp://user:word@example.com/v1",
                                        "http://user:word@exa mple.com/v1",
                                        "http://example.com/v1?key=1",
                                        "http://example.com/v1#x",
                                        "http://"};
    (void)state;
    for (size_t i = 0; i < TM__COUNT(fine); i++) {
        char *url = NULL;
        assert_ok(tm__http_address(fine[i].base, "/chat/completions", &url));
        assert_string_equal(url, fine[i].url);
        assert_true(tm__http_is_private(url) == fine[i].private);
        free(url);
    }
    for (size_t i = 0; i < TM__COUNT(wrong); i++) {
        char *url = NULL;
        if (tm__http_address(wrong[i], "/chat/completions", &url) != TM_INVALID) fail_msg("%s: %s", wrong[i], url);
        assert_string_equal(tm_error_last()->field, "url");
        assert_null(strstr(tm_error_last()->line, "word"));
    }
}

static void test_options(void **state) {
    static const struct {
        const char *spec;
        tm_status status;
        const char *error;
    } wrong[] = {
        {"rubric,model=m", TM_INVALID, "url: is needed"},
        {"rubric,url=http://localhost/v1", TM_INVALID, "model: is needed"},
        {"rubric=x,url=http://localhost/v1,model=m", TM_INVALID, "takes no file"},
        {"rubric,url=nonsense,model=m", TM_INVALID, "http://localhost:8000/v1"},
        {"rubric,url=http://localhost/v1,model=m,key-env=TEMPER_TEST_KEY", TM_NOT_FOUND, "TEMPER_TEST_KEY is not set"},
        {"rubric,url=http://localhost/v1,model=m,key-env=sk-SECRET-17", TM_INVALID, "not the key"},
        {"rubric,url=http://localhost/v1,model=m,key-env=", TM_INVALID, "not the key"},
        {"rubric,url=http://localhost/v1,model=m,prompt=/nowhere/x", TM_NOT_FOUND, "/nowhere/x"},
        {"rubric,url=http://localhost/v1,model=m,policy=/nowhere/x", TM_NOT_FOUND, "/nowhere/x"},
        {"rubric,url=http://localhost/v1,model=m,system=/nowhere/x", TM_NOT_FOUND, "/nowhere/x"},
        {"rubric,url=http://localhost/v1,model=m,ca=/nowhere/x", TM_NOT_FOUND, "/nowhere/x"},
        {"rubric,url=http://localhost/v1,model=m,concurrency=0", TM_INVALID, "concurrency"},
        {"rubric,url=http://localhost/v1,model=m,concurrency=65", TM_INVALID, "is outside 1 to 64"},
        {"strongreject,url=http://localhost/v1,model=m,policy=x", TM_NOT_FOUND, "policy"},
    };
    (void)state;
    for (size_t i = 0; i < TM__COUNT(wrong); i++) {
        tm_judge *judge = NULL;
        tm_status status = tm_judge_open(wrong[i].spec, NULL, NULL, &judge);
        if (status != wrong[i].status || !strstr(tm_error_last()->line, wrong[i].error))
            fail_msg("%s: %s", wrong[i].spec, tm_error_last()->line);
        assert_null(strstr(tm_error_last()->line, "SECRET"));
    }
}

/* What decides a verdict is in the hash; what does not is not. */
static void test_identity(void **state) {
    static const struct {
        const char *extra;
        bool same;
    } cases[] = {{"", true},
                 {"retries=1", true},
                 {"concurrency=3,timeout=9,cache=/x", true},
                 {"model=n", false},
                 {"temperature=1", false},
                 {"max-tokens=5", false},
                 {"threshold=0.4", false}};
    tm_judge *judge = NULL;
    char hash[65];
    (void)state;
    assert_ok(open_judge("strongreject", 1, "", &judge));
    snprintf(hash, sizeof hash, "%s", tm_judge_hash(judge));
    tm_judge_close(judge);
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        assert_ok(open_judge("strongreject", 2, cases[i].extra, &judge)); /* at another address */
        if ((strcmp(hash, tm_judge_hash(judge)) == 0) != cases[i].same) fail_msg("%s", cases[i].extra);
        tm_judge_close(judge);
    }
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static tm_status all_of_it(int port, const char *extra, const char *beside, tm__verdict v[2]) {
    static const tm__exchange two[] = {{"p", NULL, "answer-1"}, {"p", NULL, "answer-1"}};
    tm_judge *judge = NULL;
    tm_judge_cost cost = {0};
    tm_status status = open_judge("rubric", port, extra, &judge);
    if (status == TM_OK) status = judge->kind->beside(judge->own, beside);
    if (status == TM_OK) status = judge->kind->estimate(judge->own, two, 2, &cost);
    if (status == TM_OK) status = tm__judge_answers(judge, two, 2, v, NULL);
    tm_judge_close(judge);
    return status;
}

static void test_memory(void **state) {
    script s = {.by_answer = true};
    const char *scratch = test_scratch();
    char extra[600], beside[200], *system = tm__path_join(scratch, "system");
    tm__verdict v[2];
    int failures = 0;
    (void)state;
    write_text(system, "Be brief.");
    snprintf(extra, sizeof extra, "system=%s", system);
    script_start(&s);
    setenv("OPENAI_API_KEY", "k", 1);
    for (long n = 1;; n += 1 + n / 60) {
        snprintf(beside, sizeof beside, "%s/%ld", scratch, n); /* an empty cache every time */
        tm__alloc_fail_at(n, true);
        tm_status status = all_of_it(http_server_port(s.server), extra, beside, v);
        bool failed = tm__alloc_has_failed();
        tm__alloc_fail_at(0, false);
        if (!failed) {
            assert_ok(status);
            assert_true(v[0].scores[1] == 2 && v[1].scores[1] == 2);
            tm__verdict_free(&v[0]);
            tm__verdict_free(&v[1]);
            break;
        }
        if (status != TM_NO_MEMORY) fail_msg("allocation %ld: %s", n, tm_error_last()->line);
        failures++;
    }
    assert_true(failures > 40);
    endpoint_environment();
    script_stop(&s);
    free(system);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache),        cmocka_unit_test(test_damaged),  cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_many),         cmocka_unit_test(test_estimate), cmocka_unit_test(test_prompt),
        cmocka_unit_test(test_strongreject), cmocka_unit_test(test_key),      cmocka_unit_test(test_proxy),
        cmocka_unit_test(test_addresses),    cmocka_unit_test(test_options),  cmocka_unit_test(test_identity),
        cmocka_unit_test(test_memory)};
    endpoint_environment();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
