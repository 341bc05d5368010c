/* endpoint.h: judges that are language models behind an OpenAI-compatible address: what their kinds share. */
#ifndef TM_JUDGE_ENDPOINT_H
#define TM_JUDGE_ENDPOINT_H

#include "judge/judge.h"

typedef struct tm__endpoint_options {
    const char *url, *model, *key_env, *ca, *cache, *prompt, *system;
    int64_t max_tokens, retries, concurrency;
    double temperature, timeout, backoff, longest;
    int limit_field;
} tm__endpoint_options;

/* Rows of a kind's option table; its options struct has a member `endpoint`. */
#define TM__ENDPOINT_ROWS(type)                                                                                    \
    {"url",                                                                                                        \
     TM_OPTION_TEXT,                                                                                               \
     offsetof(type, endpoint.url),                                                                                 \
     NULL,                                                                                                         \
     1,                                                                                                            \
     0,                                                                                                            \
     NULL,                                                                                                         \
     "URL",                                                                                                        \
     "address of the endpoint, as in http://localhost:8000/v1; /chat/completions is put behind it"},               \
        {"model", TM_OPTION_TEXT, offsetof(type, endpoint.model), NULL, 1, 0, NULL, "NAME", "which model judges"}, \
        {"key-env",                                                                                                \
         TM_OPTION_TEXT,                                                                                           \
         offsetof(type, endpoint.key_env),                                                                         \
         NULL,                                                                                                     \
         1,                                                                                                        \
         0,                                                                                                        \
         NULL,                                                                                                     \
         "NAME",                                                                                                   \
         "environment variable that holds the key; else OPENAI_API_KEY, which goes over https or to this machine " \
         "only"},                                                                                                  \
        {"prompt",                                                                                                 \
         TM_OPTION_TEXT,                                                                                           \
         offsetof(type, endpoint.prompt),                                                                          \
         NULL,                                                                                                     \
         1,                                                                                                        \
         0,                                                                                                        \
         NULL,                                                                                                     \
         "FILE",                                                                                                   \
         "what is asked, with {forbidden_prompt} and {response}; else a prompt in our own words"},                 \
        {"system", TM_OPTION_TEXT, offsetof(type, endpoint.system),      NULL, 1, 0,                               \
         NULL,     "FILE",         "system message before it; else none"},                                         \
        {"temperature",                                                                                            \
         TM_OPTION_REAL,                                                                                           \
         offsetof(type, endpoint.temperature),                                                                     \
         "0",                                                                                                      \
         -1,                                                                                                       \
         2,                                                                                                        \
         NULL,                                                                                                     \
         NULL,                                                                                                     \
         "of the judge; below 0: not sent, for models that refuse it"},                                            \
        {"max-tokens", TM_OPTION_INT, offsetof(type, endpoint.max_tokens), "1024", 1, 1 << 20,                     \
         NULL,         "tokens",      "that the judge may write"},                                                 \
        {"limit-field",                                                                                            \
         TM_OPTION_CHOICE,                                                                                         \
         offsetof(type, endpoint.limit_field),                                                                     \
         "max_tokens",                                                                                             \
         1,                                                                                                        \
         0,                                                                                                        \
         "max_tokens|max_completion_tokens",                                                                       \
         NULL,                                                                                                     \
         "what the endpoint calls that limit"},                                                                    \
        {"timeout", TM_OPTION_REAL, offsetof(type, endpoint.timeout), "120", 0.001, 86400, NULL,                   \
         "seconds", "for one try"},                                                                                \
        {"retries",                                                                                                \
         TM_OPTION_INT,                                                                                            \
         offsetof(type, endpoint.retries),                                                                         \
         "6",                                                                                                      \
         0,                                                                                                        \
         100,                                                                                                      \
         NULL,                                                                                                     \
         NULL,                                                                                                     \
         "further tries after 408, 409, 429, 5xx, a timeout, a lost connection or half a reply"},                  \
        {"backoff",                                                                                                \
         TM_OPTION_REAL,                                                                                           \
         offsetof(type, endpoint.backoff),                                                                         \
         "1000",                                                                                                   \
         0,                                                                                                        \
         1e6,                                                                                                      \
         NULL,                                                                                                     \
         "milliseconds",                                                                                           \
         "before the second try; doubled for each after it"},                                                      \
        {"longest-wait",                                                                                           \
         TM_OPTION_REAL,                                                                                           \
         offsetof(type, endpoint.longest),                                                                         \
         "120",                                                                                                    \
         0,                                                                                                        \
         86400,                                                                                                    \
         NULL,                                                                                                     \
         "seconds",                                                                                                \
         "between two tries, also where the endpoint asks for more"},                                              \
        {"concurrency", TM_OPTION_INT, offsetof(type, endpoint.concurrency),      "8", 1, TM__JUDGE_BATCH,         \
         NULL,          NULL,          "requests under way at a time, 64 at most"},                                \
        {"ca",                                                                                                     \
         TM_OPTION_TEXT,                                                                                           \
         offsetof(type, endpoint.ca),                                                                              \
         NULL,                                                                                                     \
         1,                                                                                                        \
         0,                                                                                                        \
         NULL,                                                                                                     \
         "FILE",                                                                                                   \
         "certificates to trust (PEM); else the system's"},                                                        \
    {                                                                                                              \
        "cache", TM_OPTION_TEXT, offsetof(type, endpoint.cache), NULL, 1, 0, NULL, "DIR",                          \
            "where replies are kept, so that no question is paid for twice; else judge-cache beside the results"   \
    }

/* What a kind has of its own. */
typedef struct tm__endpoint_kind {
    const char *prompt;   /* where the user gives none */
    const char *policy;   /* stands for {policy} in prompt and system message; NULL: that is no place */
    const char *identity; /* what else decides a verdict; NULL: nothing */
    const void *options;
    /* Scores of a reply, or why there are none. */
    tm_status (*read)(const char *text, const void *options, tm__verdict *verdict);
} tm__endpoint_kind;

typedef struct tm__endpoint tm__endpoint;

/* Options and the kind's texts must live as long as the endpoint, but for its prompt, policy and identity. */
tm_status tm__endpoint_open(const tm__endpoint_kind *kind, const tm__endpoint_options *options,
                            tm__endpoint **endpoint);
/* These have the types of tm__judge_kind's; `own` is a tm__endpoint. */
tm_status tm__endpoint_judge(void *own, const tm__exchange *exchanges, size_t n, tm__verdict *verdicts,
                             const tm_monitor *monitor);
tm_status tm__endpoint_estimate(void *own, const tm__exchange *exchanges, size_t n, tm_judge_cost *cost);
tm_status tm__endpoint_beside(void *own, const char *directory);
void tm__endpoint_account(const void *own, char *line, size_t size);
void tm__endpoint_identity(const void *own, tm__sha256 *hash);
void tm__endpoint_close(void *own);

/* ---- replies that were paid for (reply_cache.c) ------------------------------------------------------------------ */

/* One file per key (64 hexadecimal digits) that appears whole or not at all. *text is NULL where there is none or its
 * file is damaged; the caller's. */
tm_status tm__reply_cache_get(const char *directory, const char *key, char **text);
tm_status tm__reply_cache_put(const char *directory, const char *key, const char *model, const char *text);

#endif
