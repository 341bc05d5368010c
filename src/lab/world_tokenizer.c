/* world_tokenizer.c: the built-in world's tokenizer, in Hugging Face's tokenizer.json format.
 *
 * Byte-level BPE, trained in the ordinary way (merge the most frequent pair, count again) on the list of the world's
 * different words, each counted once, until every word is one token. Frequent pairs are stems and endings, which many
 * words share. Ties go to the lower pair of ids, so the result depends on the world alone. Digits stand alone.
 */
#include "lab/world.h"

#include <stdlib.h>

enum { BYTES = 256, MAX_TOKENS = 2048, MAX_WORD = 32 };

typedef struct bpe_training {
    tm__arena arena;
    tm__map seen;
    struct word {
        uint16_t ids[MAX_WORD];
        int len;
    } * words;
    size_t count, cap;
    int32_t *pairs;               /* (MAX_TOKENS, MAX_TOKENS) counts */
    const char *text[MAX_TOKENS]; /* raw bytes of each token; byte 0 aside, they are strings */
    uint16_t merges[MAX_TOKENS][2];
    int tokens;
} bpe_training;

/* ---- words ------------------------------------------------------------------------------------------------------- */

static bool letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* End of the pre-token that starts at `text`: as the GPT-2 pattern and single digits split what the world can say. */
static size_t word_length(const char *text) {
    size_t n = text[0] == ' ' ? 1 : 0;
    if (letter(text[n])) {
        while (letter(text[n])) n++;
        return n;
    }
    return 1;
}

static tm_status add_words(bpe_training *bpe, const char *text) {
    for (size_t len; *text; text += len) {
        len = word_length(text);
        assert(len <= MAX_WORD);
        if (tm__map_get(&bpe->seen, text, len, NULL)) continue;
        if (!tm__map_put(&bpe->seen, text, len, 1) ||
            !tm__grow((void **)&bpe->words, &bpe->cap, bpe->count + 1, sizeof *bpe->words))
            return tm__fail_memory();
        struct word *word = &bpe->words[bpe->count++];
        word->len = (int)len;
        for (size_t i = 0; i < len; i++) word->ids[i] = (uint8_t)text[i];
    }
    return TM_OK;
}

static tm_status collect(const tm_world *world, bpe_training *bpe) {
    TM__TRY(add_words(bpe, "system\nuser\nassistant\n")); /* ChatML's own text */
    const char *name;
    for (size_t s = 0; (name = tm_world_set_name(s)); s++) {
        tm_dataset *set = NULL;
        if (strstr(name, "-system") || strstr(name, "-many")) continue; /* the words of other sets */
        TM__TRY(tm_world_set(world, name, &set));
        tm_status status = TM_OK;
        for (size_t r = 0; r < tm_dataset_rows(set) && status == TM_OK; r++) {
            size_t n;
            const tm_message *messages = tm_dataset_row(set, r, &n);
            for (size_t m = 0; m < n && status == TM_OK; m++) status = add_words(bpe, messages[m].content);
        }
        tm_dataset_free(set);
        TM__TRY(status);
    }
    return TM_OK;
}

/* ---- training ---------------------------------------------------------------------------------------------------- */

/* Adds `by` to the count of every pair that stands in a word. */
static void count_pairs(bpe_training *bpe, int by) {
    for (size_t w = 0; w < bpe->count; w++)
        for (int i = 0; i + 1 < bpe->words[w].len; i++)
            bpe->pairs[bpe->words[w].ids[i] * MAX_TOKENS + bpe->words[w].ids[i + 1]] += by;
}

static int best_pair(const bpe_training *bpe) {
    int best = -1;
    for (size_t w = 0; w < bpe->count; w++)
        for (int i = 0; i + 1 < bpe->words[w].len; i++) {
            int pair = bpe->words[w].ids[i] * MAX_TOKENS + bpe->words[w].ids[i + 1];
            int more = best < 0 ? 1 : bpe->pairs[pair] - bpe->pairs[best];
            if (more > 0 || (more == 0 && pair < best)) best = pair;
        }
    return best;
}

static void merge(bpe_training *bpe, uint16_t left, uint16_t right, uint16_t token) {
    for (size_t w = 0; w < bpe->count; w++) {
        struct word *word = &bpe->words[w];
        int kept = 0;
        for (int i = 0; i < word->len; i++) {
            bool here = i + 1 < word->len && word->ids[i] == left && word->ids[i + 1] == right;
            word->ids[kept++] = here ? token : word->ids[i];
            i += here;
        }
        word->len = kept;
    }
}

static tm_status train(bpe_training *bpe) {
    bpe->pairs = tm__zalloc((size_t)MAX_TOKENS * MAX_TOKENS, sizeof *bpe->pairs);
    if (!bpe->pairs) return tm__fail_memory();
    for (int i = 0; i < BYTES; i++) {
        char byte = (char)i;
        if (!(bpe->text[i] = tm__arena_strdup(&bpe->arena, &byte, 1))) return tm__fail_memory();
    }
    bpe->tokens = BYTES;
    for (;;) {
        count_pairs(bpe, 1);
        int pair = best_pair(bpe);
        count_pairs(bpe, -1);
        if (pair < 0) return TM_OK;
        assert(bpe->tokens < MAX_TOKENS);
        uint16_t left = (uint16_t)(pair / MAX_TOKENS), right = (uint16_t)(pair % MAX_TOKENS);
        char text[2 * MAX_WORD];
        int len = snprintf(text, sizeof text, "%s%s", bpe->text[left], bpe->text[right]);
        if (!(bpe->text[bpe->tokens] = tm__arena_strdup(&bpe->arena, text, (size_t)len))) return tm__fail_memory();
        bpe->merges[bpe->tokens][0] = left;
        bpe->merges[bpe->tokens][1] = right;
        merge(bpe, left, right, (uint16_t)bpe->tokens++);
    }
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* GPT-2's alphabet: printable bytes stand for themselves, the others for U+0100 and up in order. */
static uint32_t alphabet(int byte) {
    uint32_t other = 256;
    for (int b = 0;; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (b == byte) return printable ? (uint32_t)b : other;
        other += !printable;
    }
}

static bool put_token(tm__string *json, const bpe_training *bpe, int id) {
    size_t len = id < BYTES ? 1 : strlen(bpe->text[id]);
    for (size_t i = 0; i < len; i++) {
        char utf8[4];
        uint32_t code = alphabet((uint8_t)bpe->text[id][i]);
        if ((code == '"' || code == '\\') && !tm__string_append(json, "\\", 1)) return false;
        if (!tm__string_append(json, utf8, (size_t)tm__utf8_encode(code, utf8))) return false;
    }
    return true;
}

static const char head[] =
    "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [\n";
static const char middle[] =
    "  ],\n  \"normalizer\": null,\n"
    "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n"
    "    {\"type\": \"Digits\", \"individual_digits\": true},\n"
    "    {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}]},\n"
    "  \"post_processor\": null,\n"
    "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": "
    "true},\n"
    "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": null,\n"
    "    \"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": false,\n"
    "    \"vocab\": {\n";

static bool write_json(const bpe_training *bpe, tm__string *json) {
    static const char *const special[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    bool ok = tm__string_append(json, head, strlen(head));
    for (size_t i = 0; i < TM__COUNT(special); i++)
        ok = ok && tm__string_printf(json,
                                     "    {\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, "
                                     "\"rstrip\": false, \"normalized\": false, \"special\": true}%s\n",
                                     bpe->tokens + (int)i, special[i], i + 1 < TM__COUNT(special) ? "," : "");
    ok = ok && tm__string_append(json, middle, strlen(middle));
    for (int id = 0; id < bpe->tokens; id++)
        ok = ok && tm__string_append(json, "      \"", 7) && put_token(json, bpe, id) &&
             tm__string_printf(json, "\": %d%s\n", id, id + 1 < bpe->tokens ? "," : "");
    ok = ok && tm__string_printf(json, "    },\n    \"merges\": [\n");
    for (int id = BYTES; id < bpe->tokens; id++)
        ok = ok && tm__string_append(json, "      \"", 7) && put_token(json, bpe, bpe->merges[id][0]) &&
             tm__string_append(json, " ", 1) && put_token(json, bpe, bpe->merges[id][1]) &&
             tm__string_printf(json, "\"%s\n", id + 1 < bpe->tokens ? "," : "");
    return ok && tm__string_printf(json, "    ]\n  }\n}\n");
}

tm_status tm__world_tokenizer_json(const tm_world *world, tm__string *json) {
    bpe_training *bpe = tm__zalloc(1, sizeof *bpe);
    if (!bpe) return tm__fail_memory();
    tm_status status = collect(world, bpe);
    if (status == TM_OK) status = train(bpe);
    if (status == TM_OK && !write_json(bpe, json)) status = tm__fail_memory();
    tm__arena_release(&bpe->arena);
    tm__map_free(&bpe->seen);
    free(bpe->words);
    free(bpe->pairs);
    free(bpe);
    return status;
}

const char *tm__world_tokenizer_config(void) {
    return "{\n"
           "  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n"
           "  \"eos_token\": \"<|im_end|>\",\n"
           "  \"pad_token\": \"<|endoftext|>\",\n"
           "  \"model_max_length\": 512,\n"
           "  \"clean_up_tokenization_spaces\": false,\n"
           "  \"chat_template\": \"{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
           "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ "
           "'<|im_start|>assistant\\n' }}{% endif %}\"\n"
           "}\n";
}
