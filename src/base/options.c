/* options.c: option tables: defaults, parsing with range checks, values as text.
 *
 * Numbers are read and written in the C locale whatever the program's locale is, and written with the fewest digits
 * that read back as the same number.
 */
#include "base/base.h"

#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <strings.h>

/* The C locale is a constant of the C library: newlocale allocates nothing for it. */
static locale_t c_locale(void) {
    return newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

const tm_option *tm_options_find(const tm_option *table, const char *name) {
    for (; table->name; table++)
        if (strcmp(table->name, name) == 0) return table;
    return NULL;
}

bool tm__option_is_path(const tm_option *option) {
    static const char *const units[] = {"FILE", "DIR", TM_UNIT_OUT_FILE, TM_UNIT_OUT_DIR};
    if (option->type != TM_OPTION_TEXT || !option->unit) return false;
    for (size_t i = 0; i < TM__COUNT(units); i++)
        if (strcmp(option->unit, units[i]) == 0) return true;
    return false;
}

/* ---- the nearest name -------------------------------------------------------------------------------------------- */

/* Edit distance of two names, each read as far as 63 bytes. */
static int distance(const char *a, size_t a_len, const char *b, size_t b_len) {
    int row[64];
    a_len = TM__MIN(a_len, (size_t)63);
    b_len = TM__MIN(b_len, (size_t)63);
    for (size_t j = 0; j <= b_len; j++) row[j] = (int)j;
    for (size_t i = 1; i <= a_len; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= b_len; j++) {
            int replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = TM__MIN(replaced, 1 + TM__MIN(row[j], row[j - 1]));
        }
    }
    return row[b_len];
}

void tm__nearest_consider(tm__nearest *best, const char *wanted, const char *name, size_t len) {
    int d = distance(wanted, strlen(wanted), name, len);
    if (!best->name || d < best->distance) *best = (tm__nearest){name, len, d};
}

bool tm__nearest_hint(const tm__nearest *best, const char *wanted, char hint[96]) {
    hint[0] = 0;
    if (!best->name || best->distance > 1 + (int)strlen(wanted) / 3) return false;
    snprintf(hint, 96, "did you mean '%.*s'?", (int)TM__MIN(best->len, (size_t)63), best->name);
    return true;
}

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

/* The next of "a|b|c"; `*at` moves behind it. NULL at the end. */
static const char *next_choice(const char **at, size_t *len) {
    const char *start = *at;
    if (!*start) return NULL;
    *len = strcspn(start, "|");
    *at = start + *len + (start[*len] == '|');
    return start;
}

static tm_status fail_value(const tm_option *option, const char *value, const char *hint, const char *wanted) {
    return tm__fail(TM_INVALID, NULL, option->name, hint, "'%.80s' is not %s", value, wanted);
}

static void number_text(double number, char *out, size_t size) {
    locale_t old = uselocale(c_locale());
    bool whole = fabs(number) < 1e9 && number == floor(number);
    if (whole) snprintf(out, size, "%.0f", number);
    for (int digits = 1; !whole && digits <= 17; digits++) {
        snprintf(out, size, "%.*g", digits, number);
        if (strtod(out, NULL) == number) break;
    }
    uselocale(old);
}

static tm_status check_range(const tm_option *option, double number, const char *value) {
    if (option->min > option->max || (number >= option->min && number <= option->max)) return TM_OK;
    char min[32], max[32];
    number_text(option->min, min, sizeof min);
    number_text(option->max, max, sizeof max);
    if (isinf(option->max))
        return tm__fail(TM_INVALID, NULL, option->name, NULL, "%.80s is below the least value %s", value, min);
    return tm__fail(TM_INVALID, NULL, option->name, NULL, "%.80s is outside %s to %s", value, min, max);
}

static tm_status set_flag(const tm_option *option, bool *flag, const char *value) {
    static const struct {
        const char *word;
        bool means;
    } words[] = {{"true", true}, {"false", false}, {"yes", true}, {"no", false},
                 {"on", true},   {"off", false},   {"1", true},   {"0", false}};
    for (size_t i = 0; i < TM__COUNT(words); i++)
        if (!value || strcasecmp(value, words[i].word) == 0) {
            *flag = words[i].means; /* without a value: the first word */
            return TM_OK;
        }
    return fail_value(option, value, "give it alone, or with true or false", "true or false");
}

static tm_status set_int(const tm_option *option, int64_t *number, const char *value) {
    const char *digits = value + (value[0] == '-' || value[0] == '+');
    size_t len = strspn(digits, "0123456789");
    if (len == 0 || digits[len]) return fail_value(option, value, NULL, "an integer");
    errno = 0;
    long long parsed = strtoll(value, NULL, 10);
    if (errno == ERANGE) return fail_value(option, value, NULL, "an integer of 64 bits");
    TM__TRY(check_range(option, (double)parsed, value));
    *number = parsed;
    return TM_OK;
}

/* Bytes: a number, and a letter for so many times 1,024. */
static tm_status set_bytes(const tm_option *option, int64_t *number, const char *value) {
    static const char letters[] = "KMGT";
    size_t len = strspn(value, "0123456789.");
    const char *letter = value[len] ? strchr(letters, toupper((unsigned char)value[len])) : NULL;
    const char *rest = value + len + (letter != NULL);
    bool named = letter && (strcasecmp(rest, "iB") == 0 || strcasecmp(rest, "B") == 0);
    char *end = NULL;
    double parsed = len ? strtod_l(value, &end, c_locale()) : 0;
    if (!len || end != value + len || (*rest && !named))
        return fail_value(option, value, "as in 8G or 6500M", "a number of bytes");
    if (letter) parsed *= (double)(1ULL << (10 * (letter - letters + 1)));
    TM__TRY(check_range(option, parsed, value));
    *number = (int64_t)parsed;
    return TM_OK;
}

static tm_status set_real(const tm_option *option, double *number, const char *value) {
    char *end = NULL;
    bool plain = value[0] && strspn(value, "0123456789+-.eE") == strlen(value); /* no inf, nan, hexadecimal, blanks */
    double parsed = plain ? strtod_l(value, &end, c_locale()) : 0;
    if (!plain || *end) return fail_value(option, value, NULL, "a number");
    if (isinf(parsed)) return fail_value(option, value, NULL, "a finite number");
    TM__TRY(check_range(option, parsed, value));
    *number = parsed;
    return TM_OK;
}

static tm_status set_choice(const tm_option *option, int *index, const char *value) {
    const char *at = option->choices, *name;
    tm__nearest best = {0};
    size_t len;
    for (int i = 0; (name = next_choice(&at, &len)) != NULL; i++) {
        if (strlen(value) == len && memcmp(name, value, len) == 0) {
            *index = i;
            return TM_OK;
        }
        tm__nearest_consider(&best, value, name, len);
    }
    char hint[96], wanted[256];
    tm__nearest_hint(&best, value, hint);
    snprintf(wanted, sizeof wanted, "one of %s", option->choices);
    return fail_value(option, value, hint, wanted);
}

static tm_status set_option(const tm_option *option, void *options, const char *value) {
    void *field = (char *)options + option->offset;
    if (!value && option->type != TM_OPTION_FLAG)
        return tm__fail(TM_INVALID, NULL, option->name, option->unit, "needs a value");
    switch (option->type) {
    case TM_OPTION_FLAG:
        return set_flag(option, field, value);
    case TM_OPTION_INT:
        return option->unit && strcmp(option->unit, TM_UNIT_BYTES) == 0 ? set_bytes(option, field, value)
                                                                        : set_int(option, field, value);
    case TM_OPTION_REAL:
        return set_real(option, field, value);
    case TM_OPTION_CHOICE:
        return set_choice(option, field, value);
    case TM_OPTION_TEXT:
        break;
    }
    *(const char **)field = value;
    return TM_OK;
}

tm_status tm_options_set(const tm_option *table, void *options, const char *name, const char *value) {
    const tm_option *option = tm_options_find(table, name);
    if (option) return set_option(option, options, value);
    tm__nearest best = {0};
    for (option = table; option->name; option++) tm__nearest_consider(&best, name, option->name, strlen(option->name));
    char hint[96];
    tm__nearest_hint(&best, name, hint);
    return tm__fail(TM_NOT_FOUND, NULL, name, hint, "no such option");
}

void tm_options_default(const tm_option *table, void *options) {
    for (; table->name; table++) {
        void *field = (char *)options + table->offset;
        switch (table->type) {
        case TM_OPTION_FLAG:
            *(bool *)field = false;
            break;
        case TM_OPTION_INT:
            *(int64_t *)field = 0;
            break;
        case TM_OPTION_REAL:
            *(double *)field = 0;
            break;
        case TM_OPTION_TEXT:
            *(const char **)field = NULL;
            break;
        case TM_OPTION_CHOICE:
            *(int *)field = 0;
            break;
        }
        if (!table->initial) continue;
        tm_status status = set_option(table, options, table->initial);
        assert(status == TM_OK && "a table's default must satisfy the table");
        (void)status;
    }
}

void tm_options_text(const tm_option *option, const void *options, char *out, size_t size) {
    const void *field = (const char *)options + option->offset;
    if (size == 0) return;
    out[0] = 0;
    switch (option->type) {
    case TM_OPTION_FLAG:
        snprintf(out, size, "%s", *(const bool *)field ? "true" : "false");
        return;
    case TM_OPTION_INT:
        snprintf(out, size, "%lld", (long long)*(const int64_t *)field);
        return;
    case TM_OPTION_REAL:
        number_text(*(const double *)field, out, size);
        return;
    case TM_OPTION_TEXT:
        snprintf(out, size, "%s", *(char *const *)field ? *(char *const *)field : "");
        return;
    case TM_OPTION_CHOICE:
        break;
    }
    const char *at = option->choices, *name;
    size_t len;
    for (int i = 0; (name = next_choice(&at, &len)) != NULL; i++)
        if (i == *(const int *)field) snprintf(out, size, "%.*s", (int)len, name);
}
