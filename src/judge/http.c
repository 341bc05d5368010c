/* http.c: POST requests over libcurl's multi interface: lanes, retries, back-off, stopping.
 *
 * A lane is one request at a time, its waiting between tries included, so that a server that asks for patience gets
 * fewer requests. Waits are base * 2^(tries - 1), of which the upper half is jittered by numbers that depend on the
 * request and the try alone. Redirections are never followed: they would send the key elsewhere, or turn POST to GET.
 * Proxies are taken from the environment as libcurl does it, but for addresses on this machine: another machine's proxy
 * would look for them on itself, and read the key.
 * Test: tests/fault/test_endpoint.c.
 */
#include "judge/http.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdlib.h>

enum { POLL_MS = 100 }; /* how long a wish to stop may go unnoticed */

typedef enum lane_state { LANE_FREE, LANE_WAITING, LANE_FLYING } lane_state;

typedef struct lane {
    CURL *easy;
    lane_state state;
    size_t index;
    int tries;
    double due; /* tm__now() at which a waiting lane goes on */
    tm__rng rng;
    tm__string body;
    bool too_long, no_memory;
    size_t max_reply;
    char detail[CURL_ERROR_SIZE];
} lane;

struct tm__http {
    const tm__http_options *options;
    CURLM *multi;
    struct curl_slist *headers;
    lane *lanes;
    size_t lane_count;
    uint32_t asked; /* requests so far: names the stream of a request's jitter */
};

/* ---- addresses --------------------------------------------------------------------------------------------------- */

/* What may hold a password or a key is not said back. */
static tm_status fail_address(const char *base, const char *what) {
    const char *shown = strpbrk(base, "@?") ? "..." : base;
    return tm__fail(TM_INVALID, NULL, "url", "as in http://localhost:8000/v1", "'%.200s' %s", shown, what);
}

static bool ends_with(const char *text, const char *end) {
    size_t len = strlen(text), n = strlen(end);
    return len >= n && strcmp(text + len - n, end) == 0;
}

static char *url_part(CURLU *parts, CURLUPart part) {
    char *text = NULL;
    return curl_url_get(parts, part, &text, 0) == CURLUE_OK ? text : NULL;
}

/* A URL may be printed and a key may not, so none may be in it. */
static tm_status check_address(CURLU *parts, const char *base) {
    static const CURLUPart none[] = {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY, CURLUPART_FRAGMENT};
    char *scheme = url_part(parts, CURLUPART_SCHEME);
    bool web = scheme && (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);
    curl_free(scheme);
    if (!web) return fail_address(base, "is not an address of http or https");
    for (size_t i = 0; i < TM__COUNT(none); i++) {
        char *text = url_part(parts, none[i]);
        curl_free(text);
        if (text)
            return tm__fail(TM_INVALID, NULL, "url", "a key is given by the environment, see key-env",
                            "an address has no user, no '?' and no '#'");
    }
    return TM_OK;
}

static tm_status append_path(CURLU *parts, const char *path, char **url) {
    char *before = url_part(parts, CURLUPART_PATH), *whole = NULL, *joined = NULL;
    size_t len = before ? strlen(before) : 0;
    while (len && before[len - 1] == '/') before[--len] = 0;
    joined = tm__format("%s%s", before ? before : "", before && ends_with(before, path) ? "" : path);
    if (joined && curl_url_set(parts, CURLUPART_PATH, joined, 0) == CURLUE_OK) whole = url_part(parts, CURLUPART_URL);
    *url = whole ? tm__strdup(whole) : NULL;
    curl_free(before);
    curl_free(whole);
    free(joined);
    return *url ? TM_OK : tm__fail_memory();
}

tm_status tm__http_address(const char *base, const char *path, char **url) {
    CURLU *parts = curl_url();
    if (!parts) return tm__fail_memory();
    tm_status status = TM_OK;
    if (curl_url_set(parts, CURLUPART_URL, base, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
        status = fail_address(base, "is not an address");
    if (status == TM_OK) status = check_address(parts, base);
    if (status == TM_OK) status = append_path(parts, path, url);
    curl_url_cleanup(parts);
    return status;
}

static bool is_here(const char *host) {
    return strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
           (strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == strlen(host));
}

/* Whether the address is encrypted, and whether it is on this machine. */
static void look_at(const char *url, bool *encrypted, bool *here) {
    CURLU *parts = curl_url();
    *encrypted = *here = false;
    if (parts && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK) {
        char *scheme = url_part(parts, CURLUPART_SCHEME), *host = url_part(parts, CURLUPART_HOST);
        *encrypted = scheme && strcmp(scheme, "https") == 0;
        *here = host && is_here(host);
        curl_free(scheme);
        curl_free(host);
    }
    curl_url_cleanup(parts);
}

bool tm__http_is_private(const char *url) {
    bool encrypted, here;
    look_at(url, &encrypted, &here);
    return encrypted || here;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static CURLcode global_state = CURLE_FAILED_INIT;

static void start_curl(void) {
    global_state = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static size_t keep_body(char *bytes, size_t size, size_t count, void *user) {
    lane *l = user;
    size_t len = size * count;
    l->too_long = len > l->max_reply - l->body.len;
    if (l->too_long) return 0;
    l->no_memory = !tm__string_append(&l->body, bytes, len);
    return l->no_memory ? 0 : len;
}

static bool add_header(struct curl_slist **list, const char *text) {
    struct curl_slist *longer = text ? curl_slist_append(*list, text) : NULL;
    if (longer) *list = longer;
    return longer != NULL;
}

static bool make_headers(tm__http *h) {
    bool ok = add_header(&h->headers, "Content-Type: application/json") &&
              add_header(&h->headers, "Accept: application/json") &&
              add_header(&h->headers, "Expect:"); /* long bodies go without asking first */
    if (!ok || !h->options->key) return ok;
    char *line = tm__format("Authorization: Bearer %s", h->options->key);
    ok = add_header(&h->headers, line);
    if (line) explicit_bzero(line, strlen(line));
    free(line);
    return ok;
}

static bool only_web(CURL *easy) {
#if CURL_AT_LEAST_VERSION(7, 85, 0)
    return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
#else
    return curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS)) == CURLE_OK;
#endif
}

/* CURLOPT_NOSIGNAL stays off: libcurl then keeps SIGPIPE away while it works, and with its threaded resolver it uses no
 * alarm. */
static tm_status make_lane(tm__http *h, lane *l) {
    const tm__http_options *o = h->options;
    long whole = (long)(o->timeout * 1000);
    bool encrypted, here;
    look_at(o->url, &encrypted, &here);
    l->max_reply = o->max_reply;
    l->easy = curl_easy_init();
    if (!l->easy) return tm__fail_memory();
    CURL *e = l->easy;
    bool ok = only_web(e) && curl_easy_setopt(e, CURLOPT_URL, o->url) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_HTTPHEADER, h->headers) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_USERAGENT, "temper/" TM_VERSION) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, TM__MAX(whole, 1L)) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_ERRORBUFFER, l->detail) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, keep_body) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_WRITEDATA, l) == CURLE_OK &&
              curl_easy_setopt(e, CURLOPT_PRIVATE, l) == CURLE_OK;
#if CURL_AT_LEAST_VERSION(7, 87, 0)
    ok = ok && curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK; /* stopping waits for no name server */
#endif
    if (ok && here) ok = curl_easy_setopt(e, CURLOPT_NOPROXY, "*") == CURLE_OK;
    if (ok && o->ca) ok = curl_easy_setopt(e, CURLOPT_CAINFO, o->ca) == CURLE_OK;
    return ok ? TM_OK : tm__fail(TM_UNSUPPORTED, NULL, "url", NULL, "this libcurl cannot do what is asked of it");
}

tm_status tm__http_open(const tm__http_options *options, tm__http **http) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_curl);
    if (global_state != CURLE_OK) return tm__fail(TM_UNSUPPORTED, NULL, NULL, NULL, "libcurl cannot be started");
    tm__http *h = tm__zalloc(1, sizeof *h);
    if (!h) return tm__fail_memory();
    h->options = options;
    h->lane_count = (size_t)TM__MAX(options->concurrency, 1);
    h->lanes = tm__zalloc(h->lane_count, sizeof *h->lanes);
    h->multi = curl_multi_init();
    tm_status status = h->lanes && h->multi && make_headers(h) ? TM_OK : tm__fail_memory();
    for (size_t i = 0; status == TM_OK && i < h->lane_count; i++) status = make_lane(h, &h->lanes[i]);
    if (status == TM_OK)
        *http = h;
    else
        tm__http_close(h);
    return status;
}

void tm__http_close(tm__http *h) {
    if (!h) return;
    for (size_t i = 0; h->lanes && i < h->lane_count; i++) {
        curl_easy_cleanup(h->lanes[i].easy);
        tm__string_free(&h->lanes[i].body);
    }
    curl_multi_cleanup(h->multi);
    curl_slist_free_all(h->headers);
    free(h->lanes);
    free(h);
}

/* ---- one try ----------------------------------------------------------------------------------------------------- */

static tm_status launch(tm__http *h, lane *l, const char *body) {
    l->body.len = 0;
    l->too_long = l->no_memory = false;
    l->detail[0] = 0;
    l->tries++;
    bool ok = tm__string_append(&l->body, "", 0) &&
              curl_easy_setopt(l->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body)) == CURLE_OK &&
              curl_easy_setopt(l->easy, CURLOPT_POSTFIELDS, body) == CURLE_OK &&
              curl_multi_add_handle(h->multi, l->easy) == CURLM_OK;
    if (!ok) return tm__fail_memory();
    l->state = LANE_FLYING;
    return TM_OK;
}

static tm__http_trouble trouble_of(const lane *l, CURLcode code) {
    if (l->too_long) return TM__HTTP_TOO_LONG;
    switch (code) {
    case CURLE_OK:
        return TM__HTTP_NONE;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return TM__HTTP_RESOLVE;
    case CURLE_COULDNT_CONNECT:
        return TM__HTTP_CONNECT;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return TM__HTTP_SECURE;
    case CURLE_OPERATION_TIMEDOUT:
        return TM__HTTP_TIMEOUT;
    default:
        return TM__HTTP_BROKEN;
    }
}

/* A server may tell a wrong key by writing it out. */
void tm__http_blot(char *text, size_t len, const char *key) {
    size_t n = key ? strlen(key) : 0;
    if (!n) return;
    for (char *at = text; (at = memmem(at, (size_t)(text + len - at), key, n)) != NULL; at += n) memset(at, '*', n);
}

double tm__http_wait(const tm__http_options *o, int tries, double asked, tm__rng *rng) {
    double wait = o->backoff * ldexp(1, TM__MIN(tries - 1, 60)) * (0.5 + 0.5 * tm__rng_uniform(rng));
    return TM__MIN(TM__MAX(wait, asked), o->longest);
}

/* What came of a try: the caller looks at it, and the lane is free or waits for the next. */
static tm_status land(tm__http *h, lane *l, CURLcode result, tm__http_take take, void *user) {
    long code = 0;
    curl_off_t asked = 0;
    const char *location = NULL;
    char *moved = NULL;
    bool again = false;
    curl_multi_remove_handle(h->multi, l->easy);
    l->state = LANE_FREE;
    if (l->no_memory || result == CURLE_OUT_OF_MEMORY) return tm__fail_memory();
    curl_easy_getinfo(l->easy, CURLINFO_RESPONSE_CODE, &code);
    curl_easy_getinfo(l->easy, CURLINFO_RETRY_AFTER, &asked); /* 0: nothing; dates are turned into seconds */
    curl_easy_getinfo(l->easy, CURLINFO_REDIRECT_URL, &location);
    if (location && !(moved = tm__strdup(location))) return tm__fail_memory();
    if (moved) tm__http_blot(moved, strlen(moved), h->options->key);
    tm__http_blot(l->body.data, l->body.len, h->options->key);
    const tm__http_reply reply = {.trouble = trouble_of(l, result),
                                  .detail = l->detail[0] ? l->detail : curl_easy_strerror(result),
                                  .code = (int)code,
                                  .body = l->body.data,
                                  .len = l->body.len,
                                  .moved = moved,
                                  .tries = l->tries,
                                  .last = l->tries > h->options->retries};
    tm_status status = take(user, l->index, &reply, &again);
    free(moved);
    TM__TRY(status);
    if (again && !reply.last) {
        l->state = LANE_WAITING;
        l->due = tm__now() + tm__http_wait(h->options, l->tries, (double)asked, &l->rng);
    }
    return TM_OK;
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

/* Gives free lanes the next bodies and lets those go on whose wait is over. *busy: lanes in use; *wait: milliseconds
 * until the next is due, POLL_MS at most. */
static tm_status dispatch(tm__http *h, const char *const *bodies, size_t n, size_t *next, size_t *busy, int *wait) {
    double now = tm__now();
    *busy = 0;
    *wait = POLL_MS;
    for (size_t i = 0; i < h->lane_count; i++) {
        lane *l = &h->lanes[i];
        while (*next < n && !bodies[*next]) ++*next;
        if (l->state == LANE_FREE && *next < n) {
            l->index = (*next)++;
            l->tries = 0;
            l->rng = tm__rng_make(0, tm__stream(TM__STREAM_RETRY, h->asked++));
            TM__TRY(launch(h, l, bodies[l->index]));
        } else if (l->state == LANE_WAITING && l->due <= now) {
            TM__TRY(launch(h, l, bodies[l->index]));
        } else if (l->state == LANE_WAITING && (l->due - now) * 1000 < *wait) {
            *wait = 1 + (int)((l->due - now) * 1000);
        }
        *busy += l->state != LANE_FREE;
    }
    return TM_OK;
}

static tm_status fail_multi(CURLMcode code) {
    if (code == CURLM_OUT_OF_MEMORY) return tm__fail_memory();
    return tm__fail(TM_IO, NULL, NULL, NULL, "libcurl: %s", curl_multi_strerror(code));
}

static tm_status advance(tm__http *h, tm__http_take take, void *user, int *landed) {
    int left;
    *landed = 0;
    CURLMsg *message;
    CURLMcode code = curl_multi_perform(h->multi, &left);
    if (code != CURLM_OK) return fail_multi(code);
    while ((message = curl_multi_info_read(h->multi, &left)) != NULL) {
        char *at = NULL;
        if (message->msg != CURLMSG_DONE) continue;
        CURLcode result = message->data.result; /* the message goes when its handle is removed */
        if (curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &at) != CURLE_OK || !at) continue;
        TM__TRY(land(h, (lane *)(void *)at, result, take, user));
        ++*landed;
    }
    return TM_OK;
}

static tm_status run(tm__http *h, const char *const *bodies, size_t n, tm__http_take take, void *user,
                     const tm_monitor *monitor) {
    size_t next = 0, busy = 0;
    int wait = 0, landed = 0;
    for (;;) {
        if (tm__stop(monitor)) return tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "asking the judge was interrupted");
        TM__TRY(dispatch(h, bodies, n, &next, &busy, &wait));
        if (!busy) return TM_OK;
        TM__TRY(advance(h, take, user, &landed));
        if (landed) continue; /* there are free lanes */
        CURLMcode code = curl_multi_poll(h->multi, NULL, 0, wait, NULL);
        if (code != CURLM_OK) return fail_multi(code);
    }
}

tm_status tm__http_post(tm__http *h, const char *const *bodies, size_t n, tm__http_take take, void *user,
                        const tm_monitor *monitor) {
    tm_status status = run(h, bodies, n, take, user, monitor);
    for (size_t i = 0; i < h->lane_count; i++) {
        if (h->lanes[i].state == LANE_FLYING) curl_multi_remove_handle(h->multi, h->lanes[i].easy);
        h->lanes[i].state = LANE_FREE;
    }
    return status;
}
