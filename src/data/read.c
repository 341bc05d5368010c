/* read.c: JSON Lines, a JSON array, or plain text to a data set.
 *
 *   {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}      OpenAI
 *   {"instruction": "...", "input": "...", "output": "..."}                                         Alpaca
 *   {"prompt": "...", "completion": "..."}   or "response" for "completion"                         BeaverTails
 *
 * The first row decides which. A text is cut into rows before it is parsed: each row is then a small JSON value of its
 * own, memory stays near the size of the file, and every error can name the line where its row begins. `category` may
 * stand in any row: a text, or BeaverTails' object of booleans, of which the first true one counts; other types of it
 * are left alone, for only pairing asks for it.
 */
#include "data/data.h"

#include <jansson.h>
#include <stdlib.h>

typedef struct reader {
    const char *path;
    tm__dataset_use use;
    tm_dataset *dataset;
    int layout;         /* enum below */
    const char *answer; /* key of the answer where the layout leaves a choice; NULL: not settled yet */
    tm__arena scratch;  /* messages of one row */
} reader;

enum { LAYOUT_UNKNOWN, LAYOUT_MESSAGES, LAYOUT_ALPACA, LAYOUT_PROMPT };

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/* Puts the file and the line in front of the field that the last error names; a place inside the row ("line 1, column
 * 9" of the JSON reader) becomes one in the file. */
static tm_status at_line(const reader *r, tm_status status, size_t line) {
    if (status == TM_OK || status == TM_NO_MEMORY) return status;
    tm_error error = *tm_error_last();
    char field[160];
    size_t within, column;
    if (sscanf(error.field, "line %zu, column %zu", &within, &column) == 2)
        snprintf(field, sizeof field, "line %zu, column %zu", line + within - 1, column);
    else
        snprintf(field, sizeof field, "line %zu%s%s", line, error.field[0] ? ", " : "", error.field);
    return tm__fail(TM_FORMAT, r->path, field, error.hint, "%s", error.message);
}

static const char *type_name(const json_t *value) {
    static const char *const names[] = {"an object", "an array",  "a string",  "an integer",
                                        "a number",  "a boolean", "a boolean", "null"};
    return names[json_typeof(value)];
}

/* ---- one row ----------------------------------------------------------------------------------------------------- */

static tm_status detect(reader *r, const json_t *row) {
    if (json_object_get(row, "messages")) {
        r->layout = LAYOUT_MESSAGES;
    } else if (json_object_get(row, "instruction")) {
        r->layout = LAYOUT_ALPACA;
    } else if (json_object_get(row, "prompt")) {
        r->layout = LAYOUT_PROMPT;
    } else {
        return tm__fail(TM_FORMAT, NULL, NULL,
                        "rows hold messages, or instruction and output, or prompt and completion",
                        "holds none of the known fields");
    }
    return TM_OK;
}

/* BeaverTails marks kinds of harm by booleans; the first true one counts. */
static const char *category_of(const json_t *row) {
    const json_t *category = json_object_get(row, "category");
    if (json_is_string(category) && strlen(json_string_value(category)) == json_string_length(category))
        return json_string_value(category);
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)category, name, value) if (json_is_true(value)) return name;
    return NULL;
}

static tm_status no_answer(const char *key) {
    return tm__fail(TM_FORMAT, NULL, key, "every row to train on needs an answer", "holds no answer");
}

/* The field that tells the layout; a file that mixes layouts fails here. */
static tm_status no_field(const char *key) {
    return tm__fail(TM_FORMAT, NULL, key, "the first row decides what the fields of all rows are", "is missing");
}

static tm_status first_text(const json_t *row, const char *key, const char **text) {
    if (!json_object_get(row, key)) return no_field(key);
    return tm__json_text(row, NULL, key, NULL, text);
}

/* The text of `key`; absent, null and "" are the same here: `*text` is then NULL. */
static tm_status optional_text(const json_t *row, const char *key, const char **text) {
    const char *found;
    TM__TRY(tm__json_text(row, NULL, key, "", &found));
    *text = found[0] ? found : NULL;
    return TM_OK;
}

static tm_status add_turns(reader *r, const char *prompt, const char *input, const char *answer, const char *key,
                           const char *category) {
    if (!answer && r->use == TM__ROWS_TO_TRAIN) return no_answer(key);
    tm_message messages[3];
    size_t n = 0;
    messages[n++] = (tm_message){"user", prompt};
    if (input) messages[n++] = (tm_message){"input", input};
    if (answer) messages[n++] = (tm_message){"assistant", answer};
    return tm__dataset_add(r->dataset, messages, n, category);
}

static tm_status read_alpaca(reader *r, const json_t *row) {
    const char *prompt, *input, *answer;
    TM__TRY(first_text(row, "instruction", &prompt));
    TM__TRY(optional_text(row, "input", &input));
    TM__TRY(optional_text(row, "output", &answer));
    return add_turns(r, prompt, input, answer, "output", category_of(row));
}

static tm_status read_prompt(reader *r, const json_t *row) {
    const char *prompt, *answer;
    TM__TRY(first_text(row, "prompt", &prompt));
    if (!r->answer && json_object_get(row, "completion")) r->answer = "completion";
    if (!r->answer && json_object_get(row, "response")) r->answer = "response";
    const char *key = r->answer ? r->answer : "completion";
    TM__TRY(optional_text(row, key, &answer));
    return add_turns(r, prompt, NULL, answer, key, category_of(row));
}

static tm_status read_message(const json_t *object, size_t index, tm_message *message) {
    char field[192];
    if (!json_is_object(object)) {
        snprintf(field, sizeof field, "messages[%zu]", index);
        return tm__fail(TM_FORMAT, NULL, field, NULL, "must be an object, is %s", type_name(object));
    }
    tm_status status = tm__json_text(object, NULL, "role", NULL, &message->role);
    if (status == TM_OK) status = tm__json_text(object, NULL, "content", NULL, &message->content);
    if (status == TM_FORMAT) {
        tm_error error = *tm_error_last();
        snprintf(field, sizeof field, "messages[%zu].%s", index, error.field);
        return tm__fail(TM_FORMAT, NULL, field, error.hint, "%s", error.message);
    }
    const json_t *weight = json_object_get(object, "weight");
    if (status == TM_OK && weight && json_number_value(weight) != 1) {
        snprintf(field, sizeof field, "messages[%zu].weight", index);
        return tm__fail(TM_FORMAT, NULL, field, "remove the message or its weight", "only a weight of 1 is supported");
    }
    return status;
}

static tm_status read_messages(reader *r, const json_t *row) {
    const json_t *array = json_object_get(row, "messages");
    if (!array) return no_field("messages");
    if (!json_is_array(array))
        return tm__fail(TM_FORMAT, NULL, "messages", NULL, "must be an array, is %s", type_name(array));
    size_t n = json_array_size(array);
    tm__arena_reset(&r->scratch);
    tm_message *messages = tm__arena_alloc(&r->scratch, n, sizeof *messages);
    if (!messages) return tm__fail_memory();
    for (size_t i = 0; i < n; i++) TM__TRY(read_message(json_array_get(array, i), i, &messages[i]));
    TM__TRY(tm__messages_check(messages, n));
    const tm_message *last = &messages[n - 1];
    if (r->use == TM__ROWS_TO_TRAIN && (strcmp(last->role, "assistant") != 0 || !last->content[0]))
        return no_answer("messages");
    return tm__dataset_add(r->dataset, messages, n, category_of(row));
}

static tm_status read_row(reader *r, const json_t *row) {
    if (!json_is_object(row))
        return tm__fail(TM_FORMAT, NULL, NULL, NULL, "a row must be an object, is %s", type_name(row));
    if (r->layout == LAYOUT_UNKNOWN) TM__TRY(detect(r, row));
    if (r->layout == LAYOUT_MESSAGES) return read_messages(r, row);
    return r->layout == LAYOUT_ALPACA ? read_alpaca(r, row) : read_prompt(r, row);
}

static tm_status read_slice(reader *r, const char *text, size_t len, size_t line) {
    json_t *row = NULL;
    if (!tm__utf8_valid(text, len))
        return at_line(r, tm__fail(TM_FORMAT, NULL, NULL, NULL, "is not valid UTF-8"), line);
    tm_status status = tm__json_parse(text, len, NULL, &row);
    if (status == TM_OK) status = read_row(r, row);
    json_decref(row);
    return at_line(r, status, line);
}

/* ---- cutting a text into rows ------------------------------------------------------------------------------------ */

static bool blank(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (!strchr(" \t\r\n", text[i]) || !text[i]) return false;
    return true;
}

static size_t line_length(const char *text, size_t len) {
    const char *end = memchr(text, '\n', len);
    return end ? (size_t)(end - text) : len;
}

static tm_status read_lines(reader *r, const char *text, size_t len) {
    size_t line = 1;
    for (size_t at = 0; at < len; line++) {
        size_t n = line_length(text + at, len - at);
        if (!blank(text + at, n)) TM__TRY(read_slice(r, text + at, n, line));
        at += n + 1;
    }
    return TM_OK;
}

/* Skips white space; counts lines. */
static size_t skip_blank(const char *text, size_t len, size_t at, size_t *line) {
    for (; at < len && text[at] && strchr(" \t\r\n", text[at]); at++) *line += text[at] == '\n';
    return at;
}

/* End of the array's element that begins at `at`: the comma or bracket after it, or len. What lies between is checked
 * by the JSON reader. */
static size_t element_end(const char *text, size_t len, size_t at) {
    size_t depth = 0;
    for (; at < len; at++) {
        char c = text[at];
        if (c == '"') {
            for (at++; at < len && text[at] != '"'; at++)
                if (text[at] == '\\') at++;
        } else if (c == '[' || c == '{') {
            depth++;
        } else if (depth == 0 && (c == ',' || c == ']')) {
            return at;
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return len;
}

static tm_status fail_array(const reader *r, size_t line, const char *what) {
    return at_line(r, tm__fail(TM_FORMAT, NULL, NULL, NULL, "%s", what), line);
}

static tm_status read_array(reader *r, const char *text, size_t len) {
    size_t line = 1, at = skip_blank(text, len, 0, &line) + 1;
    at = skip_blank(text, len, at, &line);
    bool empty = at < len && text[at] == ']';
    while (!empty) {
        size_t end = element_end(text, len, at);
        if (end == len) return fail_array(r, line, "the array does not end");
        TM__TRY(read_slice(r, text + at, end - at, line));
        for (; at < end; at++) line += text[at] == '\n';
        if (text[at] == ']') break;
        at = skip_blank(text, len, at + 1, &line);
    }
    at = skip_blank(text, len, at + 1, &line);
    return at < len ? fail_array(r, line, "text after the end of the array") : TM_OK;
}

/* Adds a paragraph (to train on: an answer to an empty prompt) or a line (a prompt), carriage returns before line ends
 * removed. */
static tm_status add_text(reader *r, const char *text, size_t len, size_t line) {
    char *copy = tm__arena_alloc(&r->scratch, len + 1, 1);
    if (!copy) return tm__fail_memory();
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        if (text[i] != '\r' || (i + 1 < len && text[i + 1] != '\n')) copy[n++] = text[i];
    copy[n] = 0;
    if (memchr(text, 0, len)) return fail_array(r, line, "holds a NUL character");
    const tm_message train[] = {{"user", ""}, {"assistant", copy}}, ask[] = {{"user", copy}};
    bool prompt = r->use == TM__ROWS_TO_ASK;
    tm_status status = tm__dataset_add(r->dataset, prompt ? ask : train, prompt ? 1 : 2, NULL);
    tm__arena_reset(&r->scratch);
    if (status == TM_INVALID) return fail_array(r, line, "is not valid UTF-8");
    return status;
}

static tm_status read_text(reader *r, const char *text, size_t len) {
    size_t line = 1, first_line = 1, first = 0, end = 0; /* the paragraph so far is [first, end) */
    for (size_t at = 0; at < len; line++) {
        size_t n = line_length(text + at, len - at);
        bool empty = blank(text + at, n);
        if (end > first && (empty || r->use == TM__ROWS_TO_ASK)) {
            TM__TRY(add_text(r, text + first, end - first, first_line));
            first = end = 0;
        }
        if (!empty && end == first) {
            first = at;
            first_line = line;
        }
        if (!empty) end = at + n;
        at += n + 1;
    }
    return end > first ? add_text(r, text + first, end - first, first_line) : TM_OK;
}

/* ---- entry points ------------------------------------------------------------------------------------------------ */

tm_status tm__dataset_parse(const char *text, size_t len, const char *path, tm__dataset_use use, tm_dataset **dataset) {
    reader r = {.path = path, .use = use};
    TM__TRY(tm_dataset_create(&r.dataset));
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        len -= 3;
    }
    size_t name = strlen(path), line = 1, first = skip_blank(text, len, 0, &line);
    bool plain = name >= 4 && strcmp(path + name - 4, ".txt") == 0;
    tm_status status;
    if (plain)
        status = read_text(&r, text, len);
    else if (first < len && text[first] == '[')
        status = read_array(&r, text, len);
    else
        status = read_lines(&r, text, len);
    if (status == TM_OK && r.dataset->count == 0) status = tm__fail(TM_FORMAT, path, NULL, NULL, "holds no rows");
    tm__arena_release(&r.scratch);
    if (status == TM_OK)
        *dataset = r.dataset;
    else
        tm_dataset_free(r.dataset);
    return status;
}

static tm_status load(const char *path, tm__dataset_use use, tm_dataset **dataset) {
    char *text;
    size_t len;
    TM__TRY(tm__file_read(path, 0, &text, &len));
    tm_status status = tm__dataset_parse(text, len, path, use, dataset);
    free(text);
    return status;
}

tm_status tm_dataset_load(const char *path, tm_dataset **dataset) {
    return load(path, TM__ROWS_TO_TRAIN, dataset);
}

tm_status tm_dataset_load_prompts(const char *path, tm_dataset **dataset) {
    return load(path, TM__ROWS_TO_ASK, dataset);
}
