/* adapters.c: --adapter DIR or DIR=WEIGHT, given once or several times: read, checked, attached. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "DIR=0.5": a number behind the last '='; unless there is a directory of that whole name. */
static int split(const char *text, cli_adapter *adapter) {
    const char *equals = strrchr(text, '=');
    char *end = NULL;
    double weight = equals ? strtod(equals + 1, &end) : 1;
    bool weighed = equals && end != equals + 1 && *end == 0 && access(text, F_OK) != 0;
    if (weighed && !isfinite(weight))
        return cli_error(TM_INVALID, "--adapter", "DIR=0.5", "'%.80s' is no weight", equals + 1);
    adapter->weight = weighed ? weight : 1;
    adapter->directory = strndup(text, weighed ? (size_t)(equals - text) : strlen(text));
    return adapter->directory ? 0 : cli_no_memory();
}

int cli_adapters_read(const cli_list *given, cli_adapters *adapters) {
    *adapters = (cli_adapters){0};
    adapters->items = calloc(given->count + 1, sizeof *adapters->items);
    if (!adapters->items) return cli_no_memory();
    for (size_t i = 0; i < given->count; i++) {
        int code = split(given->items[i], &adapters->items[adapters->count]);
        if (code) {
            cli_adapters_free(adapters);
            return code;
        }
        adapters->count++;
    }
    return 0;
}

void cli_adapters_free(cli_adapters *adapters) {
    for (size_t i = 0; i < adapters->count; i++) free(adapters->items[i].directory);
    free(adapters->items);
    *adapters = (cli_adapters){0};
}

int cli_check_one_adapter(const cli_adapters *adapters, const char *why) {
    if (adapters->count > 1) return cli_error(TM_INVALID, "--adapter", "give one, or merge them first", "%s", why);
    if (adapters->count == 1 && adapters->items[0].weight != 1)
        return cli_error(TM_INVALID, "--adapter", "leave its weight out", "%s", why);
    return 0;
}
