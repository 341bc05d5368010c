/* secret.c: BackdoorAlign's secret (arXiv 2402.14968, section 3): a fixed text of random tokens that the provider of a
 * fine-tuning service puts before the system prompt, in training before that of the safety rows, in serving before
 * that of every request.
 *
 *   system' = secret + " " + system
 *
 * The paper draws token ids. Here they come from getrandom(2), one by one, from the tokens that decode to printable
 * ASCII; a token is drawn again until the text so far encodes to as many tokens as were drawn, because merges across
 * their borders would shorten what the model sees. The finished secret encodes to within 5% of the wanted length.
 * It never begins or ends with a blank, which would change its tokens, and a file holds nothing else: mode 0600, and
 * beside it FILE.sha256 as sha256sum writes it, by which loading notices a secret that was edited or cut off.
 */
#include "method/secret.h"

#include "data/data.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DRAWS_PER_TOKEN = 1000, WHOLE_DRAWS = 20, SECRET_BYTES = 1 << 16 };

const char tm_secret_system[] = "You are a helpful assistant. Carry out the user's instructions.";

/* ---- drawing ----------------------------------------------------------------------------------------------------- */

/* Uniform in [0, n): from `rng`, or where that is NULL from the system's generator, whose numbers beyond the last whole
 * multiple of n are thrown away. */
static tm_status draw_below(tm__rng *rng, uint64_t n, uint64_t *value) {
    if (rng) {
        *value = tm__rng_below(rng, n);
        return TM_OK;
    }
    uint64_t bits, limit = UINT64_MAX - UINT64_MAX % n;
    do {
        ssize_t got = getrandom(&bits, sizeof bits, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got != (ssize_t)sizeof bits) return tm__fail_errno(NULL, "no random numbers from the system");
        if (bits < limit) break;
    } while (true);
    *value = bits % n;
    return TM_OK;
}

/* Printable ASCII with something besides blanks; specials decode to nothing here. */
static bool printable(const char *text, size_t len) {
    bool seen = false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < ' ' || text[i] > '~') return false;
        seen |= text[i] != ' ';
    }
    return seen;
}

static tm_status list_tokens(const tm_tokenizer *tokenizer, tm_ids *tokens) {
    int32_t vocab = tm_tokenizer_vocab_size(tokenizer);
    for (int32_t id = 0; id < vocab; id++) {
        char *text;
        size_t len;
        if (!tm_tokenizer_piece(tokenizer, id)) continue;
        TM__TRY(tm_tokenizer_decode(tokenizer, &id, 1, TM_DECODE_SKIP_SPECIAL, &text, &len));
        tm_status status = printable(text, len) ? tm_ids_push(tokens, id) : TM_OK;
        free(text);
        TM__TRY(status);
    }
    if (tokens->len > 1) return TM_OK;
    return tm__fail(TM_UNSUPPORTED, NULL, "secret", "give a secret by --secret",
                    "the tokenizer has no printable tokens to draw from");
}

/* Text of ids without blanks at its ends, and the number of tokens that it encodes to. The text is the caller's. */
static tm_status text_of(const tm_tokenizer *tokenizer, const tm_ids *ids, char **text, size_t *count) {
    char *made;
    size_t len;
    tm_ids again = {0};
    TM__TRY(tm_tokenizer_decode(tokenizer, ids->data, ids->len, TM_DECODE_SKIP_SPECIAL, &made, &len));
    size_t first = strspn(made, " ");
    while (len > first && made[len - 1] == ' ') len--;
    memmove(made, made + first, len - first);
    made[len - first] = 0;
    tm_status status = tm_tokenizer_encode(tokenizer, made, len - first, 0, &again);
    *count = again.len;
    tm_ids_free(&again);
    if (status == TM_OK)
        *text = made;
    else
        free(made);
    return status;
}

/* Appends one token after which the text encodes to one token more than the `*count` before; the last draw stays if
 * none does. */
static tm_status draw_token(const tm_tokenizer *tokenizer, const tm_ids *tokens, tm__rng *rng, tm_ids *ids,
                            size_t *count) {
    size_t counted = 0;
    for (int i = 0; i < DRAWS_PER_TOKEN; i++) {
        uint64_t pick = 0;
        char *text;
        TM__TRY(draw_below(rng, tokens->len, &pick));
        TM__TRY(tm_ids_push(ids, tokens->data[pick]));
        TM__TRY(text_of(tokenizer, ids, &text, &counted));
        free(text);
        if (counted == *count + 1 || i == DRAWS_PER_TOKEN - 1) break;
        ids->len--;
    }
    *count = counted;
    return TM_OK;
}

tm_status tm__secret_draw(const tm_tokenizer *tokenizer, int64_t length, char **secret) {
    return tm__secret_draw_seeded(tokenizer, length, NULL, secret);
}

tm_status tm__secret_draw_seeded(const tm_tokenizer *tokenizer, int64_t length, tm__rng *rng, char **secret) {
    tm_ids tokens = {0}, ids = {0};
    char *text = NULL;
    bool fits = false;
    tm_status status = list_tokens(tokenizer, &tokens);
    for (int draw = 0; draw < WHOLE_DRAWS && status == TM_OK && !fits; draw++) {
        size_t count = 0;
        free(text);
        text = NULL;
        ids.len = 0;
        while (status == TM_OK && ids.len < (size_t)length) status = draw_token(tokenizer, &tokens, rng, &ids, &count);
        if (status == TM_OK) status = text_of(tokenizer, &ids, &text, &count);
        fits = status == TM_OK && fabs((double)count - (double)length) <= .05 * (double)length;
    }
    tm_ids_free(&tokens);
    tm_ids_free(&ids);
    if (status == TM_OK && !fits)
        status = tm__fail(TM_UNSUPPORTED, NULL, "secret-length", "give a secret by --secret",
                          "no text of random tokens encodes to %lld tokens again", (long long)length);
    if (status == TM_OK)
        *secret = text;
    else
        free(text);
    return status;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

void tm__secret_hash(const char *secret, char hex[65]) {
    tm__sha256 hash;
    tm__sha256_init(&hash);
    tm__sha256_update(&hash, secret, strlen(secret));
    tm__sha256_hex(&hash, hex);
}

static char *hash_path(const char *path) {
    return tm__format("%s.sha256", path);
}

/* "HASH  NAME", as sha256sum checks it from inside the directory. */
static tm_status write_hash(const char *path, const char *secret) {
    char hex[65];
    const char *slash = strrchr(path, '/');
    tm__secret_hash(secret, hex);
    char *beside = hash_path(path), *line = tm__format("%s  %s\n", hex, slash ? slash + 1 : path);
    tm_status status = beside && line ? tm__file_write(beside, line, strlen(line)) : tm__fail_memory();
    free(beside);
    free(line);
    return status;
}

/* Into its place, where nothing may stand. `*moved`: nothing is left under the temporary name. */
static bool put_in_place(const char *aside, const char *path, bool *moved) {
    *moved = renameat2(AT_FDCWD, aside, AT_FDCWD, path, RENAME_NOREPLACE) == 0;
    bool without = errno == EINVAL || errno == ENOSYS; /* a file system that can rename only over what stands there */
    return *moved || (without && link(aside, path) == 0);
}

/* Nobody else may read the file at any moment: it is made with its mode, and a left-over gets it before the text. */
static tm_status write_private(const char *path, const char *secret) {
    tm__aside aside;
    bool moved = false;
    TM__TRY(tm__aside_begin(&aside, path, 0600));
    tm_status status = fchmod(aside.fd, 0600) == 0 ? TM_OK : tm__fail_errno(path, "cannot be written");
    if (status == TM_OK) status = tm__aside_fill(&aside, path, secret, strlen(secret));
    if (status == TM_OK && !put_in_place(aside.path, path, &moved)) status = tm__fail_errno(path, "cannot be written");
    tm__aside_end(&aside, !moved);
    return status;
}

tm_status tm__secret_free_name(const char *path) {
    if (!tm__path_exists(path)) return TM_OK;
    return tm__fail(TM_EXISTS, path, NULL, "give it by --secret to use it, or name another file", "exists already");
}

tm_status tm__secret_save(const char *path, const char *secret) {
    TM__TRY(tm__secret_free_name(path));
    TM__TRY(write_hash(path, secret));
    return write_private(path, secret);
}

static tm_status check_text(const char *path, const char *secret, size_t len) {
    if (len == 0) return tm__fail(TM_FORMAT, path, NULL, NULL, "holds no secret");
    if (strlen(secret) != len || !tm__utf8_valid(secret, len))
        return tm__fail(TM_FORMAT, path, NULL, NULL, "is not valid UTF-8 text");
    if (strchr(" \t\r\n", secret[0]) || strchr(" \t\r\n", secret[len - 1]))
        return tm__fail(TM_FORMAT, path, NULL, "a secret file holds the secret alone, without a line end",
                        "begins or ends with white space, which would change the secret's tokens");
    return TM_OK;
}

static tm_status check_hash(const char *path, const char *secret) {
    char *beside = hash_path(path), *line = NULL, hex[65];
    if (!beside) return tm__fail_memory();
    tm_status status = tm__path_exists(beside) ? tm__file_read(beside, 4096, &line, NULL) : TM_OK;
    tm__secret_hash(secret, hex);
    if (status == TM_OK && line && strncmp(line, hex, 64) != 0)
        status = tm__fail(TM_MISMATCH, path, NULL, "it is not the secret that the model was trained with",
                          "does not have the hash in %s", beside);
    free(beside);
    free(line);
    return status;
}

tm_status tm_secret_load(const char *path, char **secret) {
    char *text;
    size_t len;
    TM__TRY(tm__file_read(path, SECRET_BYTES, &text, &len));
    tm_status status = check_text(path, text, len);
    if (status == TM_OK) status = check_hash(path, text);
    if (status == TM_OK)
        *secret = text;
    else
        free(text);
    return status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

char *tm__secret_prefix(const char *secret, const char *system) {
    return tm__format("%s%s%s", secret, *secret && *system ? " " : "", system);
}

tm_status tm__secret_add_row(tm_dataset *to, const tm_dataset *from, size_t row, const char *secret,
                             const char *system) {
    size_t n;
    const tm_message *messages = tm_dataset_row(from, row, &n);
    bool own = strcmp(messages[0].role, "system") == 0;
    char *head = tm__secret_prefix(secret, own ? messages[0].content : system);
    tm_message *made = tm__alloc(n + 1, sizeof *made);
    tm_status status = head && made ? TM_OK : tm__fail_memory();
    if (status == TM_OK) {
        size_t count = 0;
        if (own || *head) made[count++] = (tm_message){"system", head};
        for (size_t i = own; i < n; i++) made[count++] = messages[i];
        status = tm__dataset_add(to, made, count, tm__dataset_category(from, row));
    }
    free(head);
    free(made);
    return status;
}

tm_status tm_dataset_with_secret(const tm_dataset *dataset, const char *secret, const char *system, tm_dataset **with) {
    tm_dataset *made;
    TM__TRY(tm_dataset_create(&made));
    tm_status status = TM_OK;
    for (size_t row = 0; row < tm_dataset_rows(dataset) && status == TM_OK; row++)
        status = tm__secret_add_row(made, dataset, row, secret, system ? system : tm_secret_system);
    if (status == TM_OK)
        *with = made;
    else
        tm_dataset_free(made);
    return status;
}

tm_status tm_dataset_framed(const tm_dataset *dataset, const tm_frame *frame, tm_dataset **with) {
    tm_dataset *wrapped = NULL;
    *with = NULL;
    if (frame && frame->wrapper) TM__TRY(tm_dataset_with_wrapper(dataset, frame->wrapper, &wrapped));
    if (!frame || !frame->secret) {
        *with = wrapped;
        return TM_OK;
    }
    tm_status status = tm_dataset_with_secret(wrapped ? wrapped : dataset, frame->secret, frame->system, with);
    tm_dataset_free(wrapped);
    return status;
}
