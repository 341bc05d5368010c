/* chat_server.c: an endpoint for judges. chat_server PORT-FILE LOG [DELAY]: writes its port into PORT-FILE, one line
 * per request into LOG (the answer that it is asked about), and answers after DELAY seconds, until it is killed. The
 * score is 1 + N % 5 where the answer is "answer-N"; "broken-N" is answered with 500, "nonsense-N" without a score. */
#include "../http_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct log {
    FILE *file;
    double delay;
} log_to;

static const char *find(const char *body, const char *word, char name[64]) {
    const char *at = strstr(body, word);
    if (!at) return NULL;
    snprintf(name, 64, "%.*s", (int)(strlen(word) + strspn(at + strlen(word), "0123456789")), at);
    return at + strlen(word);
}

static void serve(void *user, const http_request *request, http_answer *answer) {
    log_to *to = user;
    char name[64] = "?", text[96];
    const char *number = find(request->body, "answer-", name);
    answer->delay = to->delay;
    if (find(request->body, "broken-", name)) answer->status = 500;
    find(request->body, "nonsense-", name);
    fprintf(to->file, "%s\n", name);
    fflush(to->file);
    snprintf(text, sizeof text, number ? "#thereason: so\n#thescore: %ld" : "well",
             number ? 1 + strtol(number, NULL, 10) % 5 : 0);
    answer->body = http_chat_body(text, NULL);
}

int main(int argc, char **argv) {
    log_to to = {.file = argc > 2 ? fopen(argv[2], "a") : NULL, .delay = argc > 3 ? strtod(argv[3], NULL) : 0};
    http_server *server = to.file ? http_server_start(0, serve, &to) : NULL;
    char aside[4096];
    if (!server) return 1;
    snprintf(aside, sizeof aside, "%s.new", argv[1]);
    FILE *port = fopen(aside, "w");
    if (!port || fprintf(port, "%d\n", http_server_port(server)) < 0 || fclose(port) != 0 ||
        rename(aside, argv[1]) != 0)
        return 1;
    alarm(600); /* should the test that started it be gone */
    for (;;) pause();
}
