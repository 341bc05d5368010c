/* endpoint_fixture.h: a judge and a server that answers by a script, for the tests of judges behind an endpoint. */
#ifndef TM_TEST_ENDPOINT_FIXTURE_H
#define TM_TEST_ENDPOINT_FIXTURE_H

#include "support.h"

#include "http_server.h"
#include "judge/http.h"
#include "judge/judge.h"

/* One reply. The last of a script is given again and again. */
typedef struct step {
    int status;         /* 0: ends the script; -1: the connection is closed without a reply */
    const char *text;   /* what the judge says; NULL: `raw` is the body */
    const char *raw;    /* the body as it stands */
    const char *finish; /* of `text`; NULL: "stop" */
    const char *headers;
    long longer; /* bytes promised that never come */
    size_t huge; /* bytes of blanks behind the body */
    double delay, drip;
} step;

enum { MAX_SEEN = 64 };

typedef struct script {
    const step *steps;
    bool by_answer; /* instead: the score is 1 + N % 5 where the request holds "answer-N" */
    double delay;   /* of those */
    char *bodies[MAX_SEEN], *heads[MAX_SEEN];
    double at[MAX_SEEN];
    int seen;
    http_server *server;
} script;

static char *script_body(const step *s) {
    char *body = s->text ? http_chat_body(s->text, s->finish) : strdup(s->raw ? s->raw : "");
    if (!s->huge || !body) return body;
    size_t len = strlen(body);
    char *longer = realloc(body, len + s->huge + 1);
    if (!longer) return body;
    memset(longer + len, ' ', s->huge);
    longer[len + s->huge] = 0;
    return longer;
}

static void script_serve(void *user, const http_request *request, http_answer *answer) {
    script *s = user;
    if (s->seen < MAX_SEEN) {
        s->bodies[s->seen] = strdup(request->body);
        s->heads[s->seen] = strdup(request->head);
        s->at[s->seen++] = request->at;
    }
    if (s->by_answer) {
        const char *which = strstr(request->body, "answer-");
        char text[64];
        snprintf(text, sizeof text, "#thescore: %ld", which ? 1 + strtol(which + 7, NULL, 10) % 5 : 0);
        answer->body = http_chat_body(text, NULL);
        answer->delay = s->delay;
        return;
    }
    const step *now = s->steps;
    for (int i = 0; i < request->number && now[1].status; i++) now++;
    answer->status = now->status < 0 ? 0 : now->status;
    answer->body = script_body(now);
    answer->headers = now->headers;
    answer->delay = now->delay;
    answer->drip = now->drip;
    if (now->longer) answer->promised = (long)strlen(answer->body) + now->longer;
    answer->hang_up = now->longer != 0;
}

static void script_start(script *s) {
    s->server = http_server_start(0, script_serve, s);
    assert_non_null(s->server);
}

static void script_stop(script *s) {
    if (s->server) http_server_stop(s->server);
    for (int i = 0; i < s->seen; i++) {
        free(s->bodies[i]);
        free(s->heads[i]);
    }
    s->server = NULL;
    s->seen = 0;
}

/* "KIND,url=...,model=m,backoff=1,EXTRA"; extra may be "". */
static tm_status open_judge(const char *kind, int port, const char *extra, tm_judge **judge) {
    char *spec = NULL;
    if (asprintf(&spec, "%s,url=http://127.0.0.1:%d/v1,model=m,backoff=1%s%s", kind, port, *extra ? "," : "", extra) <
        0)
        return tm__fail_memory();
    tm_status status = tm_judge_open(spec, NULL, NULL, judge);
    free(spec);
    return status;
}

/* Judges what a script answers to; the caller frees the verdicts where TM_OK is returned. */
static tm_status judge_with(script *s, const char *extra, const tm__exchange *exchanges, size_t n,
                            tm__verdict *verdicts) {
    tm_judge *judge = NULL;
    assert_ok(open_judge("rubric", http_server_port(s->server), extra, &judge));
    tm_status status = tm__judge_answers(judge, exchanges, n, verdicts, NULL);
    tm_judge_close(judge);
    return status;
}

/* The environment's proxies and keys are not the tests'. */
static void endpoint_environment(void) {
    static const char *const names[] = {"http_proxy", "HTTP_PROXY",     "all_proxy",
                                        "ALL_PROXY",  "OPENAI_API_KEY", "TEMPER_TEST_KEY"};
    for (size_t i = 0; i < TM__COUNT(names); i++) unsetenv(names[i]);
}

#endif
