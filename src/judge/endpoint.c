/* endpoint.c: asks a language model behind an OpenAI-compatible address about answers, and makes verdicts of its words.
 *
 * One user message (and one system message if wanted) per answer, POSTed to URL/chat/completions. What is asked for is
 * filled into the prompt once: places that an answer spells out stay as they are. A reply is kept by the SHA-256 of its
 * request once it holds a verdict; so the next run asks again where there was none, and pays for nothing else.
 *
 * What fails is a missing verdict with its reason, and ends the run only where no later answer could fare better: a key
 * that is refused, a host or model that does not exist, an address nobody answers at before it ever did, an account
 * without credit, or MANY_LOST requests in a row that ran out of tries.
 * Test: tests/fault/test_endpoint.c.
 */
#include "judge/endpoint.h"
#include "judge/http.h"
#include "judge/prompt.h"
#include "judge/reply.h"

#include "tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#define NAME_LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"

enum { MAX_REPLY = 4 << 20, MANY_LOST = 16 };

struct tm__endpoint {
    const tm__endpoint_options *options;
    tm__endpoint_kind kind;
    char *url;
    char *key, *cache, *system; /* NULL: none */
    tm__judge_prompt prompt;
    char hash[65];
    tm__http_options http_options;
    tm__http *http;
    bool answered, warned, told; /* it has ever given a reply; a note on the key, on nobody answering was given */
    int64_t lost_in_row;         /* requests without a reply since the last that had one */
    /* for the account: tries made, requests that had a reply, answers from the cache, equal ones, tokens as told */
    int64_t tries, replies, cached, repeated, prompt_tokens, completion_tokens;
};

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static tm_status need(const char *name, const char *value) {
    if (value && *value) return TM_OK;
    return tm__fail(TM_INVALID, NULL, name, "as in url=http://localhost:8000/v1,model=NAME", "is needed");
}

/* A key the user has named goes wherever it is sent; the usual one, which may be meant for somebody else, only where
 * nobody reads along. */
static tm_status find_key(tm__endpoint *e) {
    const char *named = e->options->key_env, *name = named ? named : "OPENAI_API_KEY", *key = getenv(name);
    size_t len = key ? strlen(key) : 0;
    if (named && (!*named || named[strspn(named, NAME_LETTERS)]))
        return tm__fail(TM_INVALID, NULL, "key-env", "as in key-env=MY_KEY", "is the name of a variable, not the key");
    while (len && strchr(" \t\r\n", key[len - 1])) len--;
    if (!len && named) return tm__fail(TM_NOT_FOUND, NULL, "key-env", NULL, "%.80s is not set", named);
    if (!len || (!named && !tm__http_is_private(e->url))) return TM_OK;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)key[i] <= ' ' || key[i] == 0x7f)
            return tm__fail(TM_INVALID, NULL, "key-env", NULL, "the key in %.80s holds blanks or control characters",
                            name);
    e->key = tm__strndup(key, len);
    return e->key ? TM_OK : tm__fail_memory();
}

/* `text` with every {policy} replaced; NULL: out of memory. */
static char *put_policy(const char *text, const char *policy) {
    static const char place[] = "{policy}";
    tm__string out = {0};
    bool ok = tm__string_append(&out, "", 0);
    for (const char *at = text, *hit; ok && at; at = hit) {
        hit = policy ? strstr(at, place) : NULL;
        ok = tm__string_append(&out, at, hit ? (size_t)(hit - at) : strlen(at));
        if (ok && hit) ok = tm__string_append(&out, policy, strlen(policy));
        if (hit) hit += strlen(place);
    }
    if (!ok) tm__string_free(&out);
    return out.data;
}

static tm_status load_prompt(tm__endpoint *e, const char *policy) {
    TM__TRY(tm__prompt_load(e->options->prompt, e->kind.prompt, &e->prompt));
    char *whole = put_policy(e->prompt.text, policy);
    if (!whole) return tm__fail_memory();
    free(e->prompt.text);
    e->prompt.text = whole;
    return TM_OK;
}

static tm_status load_system(tm__endpoint *e, const char *policy) {
    char *text;
    if (!e->options->system) return TM_OK;
    TM__TRY(tm__prompt_text(e->options->system, &text));
    tm__prompt_end_line(text);
    e->system = put_policy(text, policy);
    free(text);
    return e->system ? TM_OK : tm__fail_memory();
}

static void seal(tm__endpoint *e) {
    const tm__endpoint_options *o = e->options;
    char numbers[96];
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__identity_text(&hash, o->model);
    tm__identity_text(&hash, e->system);
    tm__identity_text(&hash, e->prompt.text);
    tm__identity_text(&hash, e->kind.identity);
    snprintf(numbers, sizeof numbers, "%a %lld", TM__MAX(o->temperature, -1), (long long)o->max_tokens);
    tm__identity_text(&hash, numbers);
    tm__sha256_hex(&hash, e->hash);
    e->kind.identity = NULL;
}

static tm_status open_http(tm__endpoint *e) {
    const tm__endpoint_options *o = e->options;
    e->http_options = (tm__http_options){.url = e->url,
                                         .key = e->key,
                                         .ca = o->ca,
                                         .timeout = o->timeout,
                                         .backoff = o->backoff / 1000,
                                         .longest = o->longest,
                                         .retries = o->retries,
                                         .concurrency = o->concurrency,
                                         .max_reply = MAX_REPLY};
    return tm__http_open(&e->http_options, &e->http);
}

static tm_status open_all(tm__endpoint *e, const tm__endpoint_kind *kind) {
    const tm__endpoint_options *o = e->options;
    TM__TRY(need("url", o->url));
    TM__TRY(need("model", o->model));
    if (!tm__utf8_valid(o->model, strlen(o->model)))
        return tm__fail(TM_INVALID, NULL, "model", NULL, "the name is not UTF-8");
    if (o->ca && !tm__path_exists(o->ca)) return tm__fail(TM_NOT_FOUND, o->ca, NULL, NULL, "no such file");
    TM__TRY(tm__http_address(o->url, "/chat/completions", &e->url));
    TM__TRY(find_key(e));
    TM__TRY(load_prompt(e, kind->policy));
    TM__TRY(load_system(e, kind->policy));
    if (o->cache && !(e->cache = tm__strdup(o->cache))) return tm__fail_memory();
    seal(e);
    return open_http(e);
}

tm_status tm__endpoint_open(const tm__endpoint_kind *kind, const tm__endpoint_options *options,
                            tm__endpoint **endpoint) {
    tm__endpoint *e = tm__zalloc(1, sizeof *e);
    *endpoint = NULL;
    if (!e) return tm__fail_memory();
    e->options = options;
    e->kind = *kind;
    tm_status status = open_all(e, kind);
    e->kind.prompt = e->kind.policy = NULL;
    if (status == TM_OK)
        *endpoint = e;
    else
        tm__endpoint_close(e);
    return status;
}

void tm__endpoint_close(void *own) {
    tm__endpoint *e = own;
    if (!e) return;
    tm__http_close(e->http);
    if (e->key) explicit_bzero(e->key, strlen(e->key));
    free(e->key);
    free(e->url);
    free(e->cache);
    free(e->system);
    tm__prompt_free(&e->prompt);
    free(e);
}

tm_status tm__endpoint_beside(void *own, const char *directory) {
    tm__endpoint *e = own;
    if (e->options->cache) return TM_OK;
    free(e->cache);
    e->cache = tm__path_join(directory, "judge-cache");
    return e->cache ? TM_OK : tm__fail_memory();
}

void tm__endpoint_identity(const void *own, tm__sha256 *hash) {
    tm__sha256_update(hash, ((const tm__endpoint *)own)->hash, 64);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* One answer's request: body and what is the same for equal ones. */
typedef struct request {
    char *body; /* NULL: nothing to send, or no longer */
    char key[65];
    size_t same; /* the first request with this key: itself, or an earlier one */
} request;

typedef struct work {
    tm__endpoint *endpoint;
    request *requests;
    tm__verdict *verdicts;
    size_t n;
    const tm_monitor *monitor;
} work;

static tm_status append_message(json_t *messages, const char *role, const char *text) {
    tm__string clean = {0};
    json_t *message = NULL;
    if (tm__string_append(&clean, "", 0) && tm__utf8_clean(text, strlen(text), false, &clean))
        message = json_pack("{s:s, s:s#}", "role", role, "content", clean.data, (int)clean.len);
    tm__string_free(&clean);
    return message && json_array_append_new(messages, message) == 0 ? TM_OK : tm__fail_memory();
}

static tm_status make_messages(const tm__endpoint *e, const tm__exchange *x, json_t *messages) {
    tm__string text = {0};
    char *asked = tm__exchange_asked(x, !e->prompt.context);
    tm_status status = asked ? TM_OK : tm__fail_memory();
    if (status == TM_OK && e->system) status = append_message(messages, "system", e->system);
    const tm__exchange whole = {.prompt = asked, .context = x->context, .answer = x->answer};
    if (status == TM_OK) status = tm__prompt_fill(&e->prompt, &whole, &text);
    if (status == TM_OK) status = append_message(messages, "user", text.data);
    tm__string_free(&text);
    free(asked);
    return status;
}

/* The body in one canonical form, whose hash names the reply in the cache. */
static tm_status make_request(const tm__endpoint *e, const tm__exchange *x, request *r) {
    static const char *const limits[] = {"max_tokens", "max_completion_tokens"};
    const tm__endpoint_options *o = e->options;
    tm__sha256 hash;
    size_t len = 0;
    tm__json_watch();
    json_t *messages = json_array();
    tm_status status = messages ? make_messages(e, x, messages) : tm__fail_memory();
    json_t *root = status == TM_OK ? json_pack("{s:s, s:O, s:I}", "model", o->model, "messages", messages,
                                               limits[o->limit_field], (json_int_t)o->max_tokens)
                                   : NULL;
    if (status == TM_OK && !root) status = tm__fail_memory();
    if (status == TM_OK && o->temperature >= 0 &&
        json_object_set_new(root, "temperature", json_real(o->temperature)) != 0)
        status = tm__fail_memory();
    if (status == TM_OK) status = tm__json_dump(root, JSON_COMPACT | JSON_SORT_KEYS, &r->body, &len);
    json_decref(root);
    json_decref(messages);
    TM__TRY(status);
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, r->body, len);
    tm__sha256_hex(&hash, r->key);
    return TM_OK;
}

static tm_status make_requests(work *w, const tm__exchange *exchanges) {
    tm__map first = {0};
    tm_status status = TM_OK;
    for (size_t i = 0; status == TM_OK && i < w->n; i++) {
        request *r = &w->requests[i];
        int32_t same = (int32_t)i;
        TM__TRY_GOTO(status, make_request(w->endpoint, &exchanges[i], r), done);
        if (!tm__map_get(&first, r->key, 64, &same) && !tm__map_put(&first, r->key, 64, same))
            status = tm__fail_memory();
        r->same = (size_t)same;
    }
done:
    tm__map_free(&first);
    return status;
}

static void drop_body(request *r) {
    free(r->body);
    r->body = NULL;
}

static void free_requests(work *w) {
    for (size_t i = 0; w->requests && i < w->n; i++) drop_body(&w->requests[i]);
    free(w->requests);
}

/* Takes what was paid for before. A reply without a verdict would not have been kept; it is asked for again. */
static tm_status take_cached(work *w) {
    for (size_t i = 0; i < w->n; i++) {
        request *r = &w->requests[i];
        tm__verdict *v = &w->verdicts[i];
        if (r->same != i) {
            drop_body(r);
            w->endpoint->repeated++;
            continue;
        }
        if (w->endpoint->cache) TM__TRY(tm__reply_cache_get(w->endpoint->cache, r->key, &v->output));
        if (!v->output) continue;
        TM__TRY(w->endpoint->kind.read(v->output, w->endpoint->kind.options, v));
        if (v->missing) {
            tm__verdict_free(v);
            continue;
        }
        drop_body(r);
        w->endpoint->cached++;
    }
    return TM_OK;
}

/* ---- replies ----------------------------------------------------------------------------------------------------- */

/* "HTTP 500 (overloaded)", "HTTP 500". */
static tm_status say(char **to, const char *what, const char *detail, int tries) {
    char times[32] = "";
    if (tries > 1) snprintf(times, sizeof times, ", %d tries", tries);
    bool ok = detail && *detail ? tm__verdict_say(to, "%s (%s)%s", what, detail, times)
                                : tm__verdict_say(to, "%s%s", what, times);
    return ok ? TM_OK : tm__fail_memory();
}

/* No reply after all tries: missing, unless that has become the rule. */
static tm_status lose(tm__endpoint *e, tm__verdict *v, const char *what, const char *detail, int tries) {
    int64_t many = TM__MAX((int64_t)MANY_LOST, 2 * e->options->concurrency);
    if (++e->lost_in_row >= many)
        return tm__fail(TM_IO, e->url, NULL, "what was judged is kept; run it again when the endpoint is well",
                        "%lld requests in a row failed: %s%s%s", (long long)many, what, *detail ? ": " : "", detail);
    return say(&v->missing, what, detail, tries);
}

static tm_status take_trouble(work *w, size_t index, const tm__http_reply *r, bool *again) {
    tm__endpoint *e = w->endpoint;
    tm__verdict *v = &w->verdicts[index];
    static const char *const what[] = {[TM__HTTP_NONE] = "",
                                       [TM__HTTP_RESOLVE] = "no such host",
                                       [TM__HTTP_CONNECT] = "nobody answers there",
                                       [TM__HTTP_SECURE] = "the certificate is not trusted",
                                       [TM__HTTP_TIMEOUT] = "no reply in time",
                                       [TM__HTTP_BROKEN] = "the connection broke",
                                       [TM__HTTP_TOO_LONG] = "the reply is too long"};
    const char *name = what[r->trouble];
    if (r->trouble == TM__HTTP_TOO_LONG) return say(&v->missing, name, NULL, 1);
    if (r->trouble == TM__HTTP_SECURE)
        return tm__fail(TM_IO, e->url, NULL, "ca=FILE names the certificates to trust", "%s: %s", name, r->detail);
    if (!e->answered && r->trouble == TM__HTTP_RESOLVE)
        return tm__fail(TM_NOT_FOUND, e->url, NULL, "check url=", "%s: %s", name, r->detail);
    *again = !r->last;
    if (*again && !e->answered && !e->told) {
        tm__note(w->monitor, "%.200s: %s; trying again", e->url, name);
        e->told = true;
    }
    if (*again) return TM_OK;
    if (!e->answered && r->trouble == TM__HTTP_CONNECT)
        return tm__fail(TM_IO, e->url, NULL, "is the server running? check url=", "%s, %d tries: %s", name, r->tries,
                        r->detail);
    return lose(e, v, name, r->detail, r->tries);
}

/* Troubles that every further request would meet. */
static bool is_final(const tm__chat_reply *reply) {
    static const char *const codes[] = {"insufficient_quota", "billing_hard_limit_reached", "invalid_api_key",
                                        "model_not_found",    "unsupported_parameter",      "unsupported_value"};
    for (size_t i = 0; reply->kind == TM__CHAT_ERROR && i < TM__COUNT(codes); i++)
        if (strcmp(reply->code, codes[i]) == 0) return true;
    return false;
}

static bool is_passing(int code) {
    return code == 408 || code == 409 || code == 429 || code >= 500;
}

static tm_status fail_request(const tm__endpoint *e, const tm__http_reply *r, const tm__chat_reply *reply) {
    bool refused = r->code == 401 || r->code == 403 || strcmp(reply->code, "invalid_api_key") == 0;
    const char *hint = refused && !e->key ? "the key is taken from the environment: OPENAI_API_KEY, or key-env=NAME"
                       : refused          ? "check the key"
                       : r->moved         ? "give the address that it moved to"
                       : r->code == 404   ? "check url= (it often ends in /v1) and model="
                                          : "check the options and the account";
    char field[32];
    snprintf(field, sizeof field, "HTTP %d", r->code);
    const char *said = r->moved ? r->moved : reply->message[0] ? reply->message : reply->code;
    return tm__fail(r->code == 404 ? TM_NOT_FOUND : TM_IO, e->url, field, hint, "the endpoint %s%s%.250s",
                    r->moved ? "has moved" : "refuses", *said ? ": " : "", said);
}

/* A text: its scores, and into the cache once it has some. */
static tm_status take_text(work *w, size_t index, tm__chat_reply *reply) {
    tm__endpoint *e = w->endpoint;
    tm__verdict *v = &w->verdicts[index];
    e->answered = true;
    e->lost_in_row = 0;
    e->replies++;
    e->prompt_tokens += reply->prompt_tokens;
    e->completion_tokens += reply->completion_tokens;
    if (reply->kind == TM__CHAT_NONE) return say(&v->missing, "the judge wrote nothing", reply->message, 1);
    v->output = reply->text;
    reply->text = NULL;
    TM__TRY(e->kind.read(v->output, e->kind.options, v));
    if (!v->missing && e->cache)
        return tm__reply_cache_put(e->cache, w->requests[index].key, e->options->model, v->output);
    if (!v->missing || !reply->cut) return TM_OK;
    char *whole = tm__format("%s; it stopped at max-tokens", v->missing);
    if (!whole) return tm__fail_memory();
    free(v->missing);
    v->missing = whole;
    return TM_OK;
}

static tm_status take_reply(work *w, size_t index, const tm__http_reply *r, tm__chat_reply *reply, bool *again) {
    tm__endpoint *e = w->endpoint;
    tm__verdict *v = &w->verdicts[index];
    char what[64];
    bool good = r->code >= 200 && r->code < 300;
    if (good && reply->kind <= TM__CHAT_NONE) return take_text(w, index, reply);
    if (r->code == 401 || r->moved || (r->code >= 300 && r->code < 400) || is_final(reply))
        return fail_request(e, r, reply);
    if (!e->answered && (r->code == 403 || r->code == 404)) return fail_request(e, r, reply);
    snprintf(what, sizeof what, "HTTP %d", r->code);
    if (good)
        snprintf(what, sizeof what, reply->kind == TM__CHAT_ERROR ? "the endpoint failed" : "half a reply, or none");
    *again = (good || is_passing(r->code)) && !r->last;
    if (*again) return TM_OK;
    if (good || is_passing(r->code)) return lose(e, v, what, reply->message, r->tries);
    e->lost_in_row = 0; /* it is there, and refuses this one request */
    return say(&v->missing, what, reply->message, 1);
}

/* Again, where JSON had escaped a letter of it. */
static void blot_reply(tm__chat_reply *reply, const char *key) {
    tm__http_blot(reply->message, strlen(reply->message), key);
    tm__http_blot(reply->code, strlen(reply->code), key);
    if (reply->text) tm__http_blot(reply->text, strlen(reply->text), key);
}

static tm_status take(void *user, size_t index, const tm__http_reply *r, bool *again) {
    work *w = user;
    tm__chat_reply reply;
    tm_status status;
    w->endpoint->tries++;
    if (r->trouble != TM__HTTP_NONE) return take_trouble(w, index, r, again);
    TM__TRY(tm__chat_reply_read(r->body, r->len, &reply));
    blot_reply(&reply, w->endpoint->key);
    status = take_reply(w, index, r, &reply, again);
    tm__chat_reply_free(&reply);
    return status;
}

/* ---- a batch ----------------------------------------------------------------------------------------------------- */

static tm_status copy_text(char **to, const char *from) {
    return !from || (*to = tm__strdup(from)) != NULL ? TM_OK : tm__fail_memory();
}

static tm_status copy_repeated(work *w) {
    for (size_t i = 0; i < w->n; i++) {
        const tm__verdict *from = &w->verdicts[w->requests[i].same];
        tm__verdict *to = &w->verdicts[i];
        if (from == to) continue;
        memcpy(to->scores, from->scores, sizeof to->scores);
        TM__TRY(copy_text(&to->output, from->output));
        TM__TRY(copy_text(&to->missing, from->missing));
    }
    return TM_OK;
}

/* Before money is spent: can replies be kept? */
static tm_status prepare_cache(const tm__endpoint *e) {
    if (!e->cache) return TM_OK;
    TM__TRY(tm__make_directories(e->cache));
    return access(e->cache, W_OK | X_OK) == 0 ? TM_OK : tm__fail_errno(e->cache, "replies cannot be kept here");
}

static tm_status send_rest(work *w, const tm_monitor *monitor) {
    tm__endpoint *e = w->endpoint;
    size_t left = 0;
    const char **bodies = tm__alloc(w->n, sizeof *bodies);
    if (!bodies) return tm__fail_memory();
    for (size_t i = 0; i < w->n; i++) {
        bodies[i] = w->requests[i].body;
        left += bodies[i] != NULL;
    }
    tm_status status = left ? prepare_cache(e) : TM_OK;
    if (status == TM_OK && left && e->key && !e->warned && !tm__http_is_private(e->url)) {
        tm__note(monitor, "the key goes to %.200s without encryption", e->url);
        e->warned = true;
    }
    if (status == TM_OK && left) status = tm__http_post(e->http, bodies, w->n, take, w, monitor);
    free(bodies);
    return status;
}

tm_status tm__endpoint_judge(void *own, const tm__exchange *exchanges, size_t n, tm__verdict *verdicts,
                             const tm_monitor *monitor) {
    work w = {.endpoint = own,
              .requests = tm__zalloc(n, sizeof *w.requests),
              .verdicts = verdicts,
              .n = n,
              .monitor = monitor};
    tm_status status = w.requests ? make_requests(&w, exchanges) : tm__fail_memory();
    if (status == TM_OK) status = take_cached(&w);
    if (status == TM_OK) status = send_rest(&w, monitor);
    if (status == TM_OK) status = copy_repeated(&w);
    free_requests(&w);
    return status;
}

/* ---- what it costs ----------------------------------------------------------------------------------------------- */

tm_status tm__endpoint_estimate(void *own, const tm__exchange *exchanges, size_t n, tm_judge_cost *cost) {
    tm__endpoint *e = own;
    const int64_t cached = e->cached, repeated = e->repeated;
    tm__verdict *verdicts = tm__zalloc(n, sizeof *verdicts);
    work w = {.endpoint = e, .requests = tm__zalloc(n, sizeof *w.requests), .verdicts = verdicts, .n = n};
    tm_status status = w.requests && verdicts ? make_requests(&w, exchanges) : tm__fail_memory();
    if (status == TM_OK) status = take_cached(&w);
    for (size_t i = 0; status == TM_OK && i < n; i++) {
        if (!w.requests[i].body) continue;
        cost->requests++;
        cost->bytes += (int64_t)strlen(w.requests[i].body);
        cost->max_tokens += e->options->max_tokens;
    }
    cost->cached += e->cached - cached;
    e->cached = cached;
    e->repeated = repeated;
    for (size_t i = 0; verdicts && i < n; i++) tm__verdict_free(&verdicts[i]);
    free_requests(&w);
    free(verdicts);
    return status;
}

void tm__endpoint_account(const void *own, char *line, size_t size) {
    const tm__endpoint *e = own;
    if (e->replies + e->cached == 0) return;
    int used = snprintf(line, size, "%lld asked in %lld tries, %lld from the cache, %lld repeated",
                        (long long)e->replies, (long long)e->tries, (long long)e->cached, (long long)e->repeated);
    if (used > 0 && (size_t)used < size && e->prompt_tokens)
        snprintf(line + used, size - (size_t)used, "; %lld tokens read, %lld written", (long long)e->prompt_tokens,
                 (long long)e->completion_tokens);
}
