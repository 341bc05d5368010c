/* Labels and ids of executed templates: what is trained on, what ends a turn, which template counts; and that the
 * built-in world's conversations are the same whether its template is executed or written piece by piece. */
#include "tokenizer_fixture.h"

#include "lab/world.h"

enum { EOS = 278 };

static tm_tokenizer *with_template(const char *source) {
    tm_tokenizer *tok = tiny_load(&(tiny_parts){.added = "{'id': 276, 'content': '<|im_start|>', 'special': true}, "
                                                         "{'id': 277, 'content': '<|im_end|>', 'special': true}, "
                                                         "{'id': 278, 'content': '</s>', 'special': true}"});
    assert_ok(tm__chat_template_add(tok, "default", source, strlen(source), "here"));
    assert_ok(tm__chat_template_prepare(tok));
    return tok;
}

static const tm_message talk[] = {{"system", "Be kind."},
                                  {"user", "hello world"},
                                  {"assistant", " hello  "},
                                  {"user", "the the"},
                                  {"assistant", "the 123"}};

/* whole: the text; trained: the bytes of the ids that have a label. */
static void expect(const tm_tokenizer *tok, size_t n, const char *whole, const char *trained, size_t split) {
    tm_ids ids = {0}, labels = {0}, alone = {0};
    tm__string text = {0};
    size_t cut = 0;
    assert_ok(tm__chat_encode(tok, TM_CHAT_AUTO, talk, n, false, &ids, &labels, &cut));
    expect_text(tok, ids.data, ids.len, 0, whole);
    assert_true(tm__string_append(&text, "", 0));
    for (size_t i = 0; i < ids.len; i++) {
        const tm__piece *piece = &tok->vocab.pieces[ids.data[i]];
        if (labels.data[i] == -100) continue;
        assert_int_equal(labels.data[i], ids.data[i]);
        assert_true(tm__string_append(&text, piece->raw, piece->raw_len));
    }
    assert_string_equal(text.data, trained);
    assert_int_equal(cut, split);
    assert_ok(tm_chat_encode(tok, TM_CHAT_TEMPLATE, talk, n, false, &alone, NULL));
    assert_int_equal(alone.len, ids.len);
    assert_memory_equal(alone.data, ids.data, ids.len * sizeof *ids.data);
    tm__string_free(&text);
    tm_ids_free(&ids);
    tm_ids_free(&labels);
    tm_ids_free(&alone);
}

static void test_answers_are_found(void **state) {
    (void)state;
    tm_tokenizer *tok =
        with_template("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
                      "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
    expect(tok, 5,
           "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhello world<|im_end|>\n<|im_start|>assistant\n"
           "hello<|im_end|>\n<|im_start|>user\nthe the<|im_end|>\n<|im_start|>assistant\nthe 123<|im_end|>\n",
           "hello<|im_end|>the 123<|im_end|>", 0);
    assert_int_equal(tm_chat_stop_id(tok, TM_CHAT_AUTO), 277);
    tm_tokenizer_free(tok);
    /* earlier answers shortened: no beginning of the text is the text of a beginning; the blank that ends the prompt
     * and "the" are one token, which is cut in two */
    tok =
        with_template("{% for m in messages %}{{ m.role[0] }}: {{ m.content[:4] if not loop.last else m.content }}</s>"
                      "{% endfor %}{% if add_generation_prompt %}a: {% endif %}");
    expect(tok, 5, "s: Be k</s>u: hell</s>a:  hel</s>u: the </s>a: the 123</s>", " hel</s> 123</s>", 1);
    assert_int_equal(tm_chat_stop_id(tok, TM_CHAT_AUTO), EOS);
    tm_tokenizer_free(tok);
}

static void test_generation_tag(void **state) {
    (void)state;
    tm_tokenizer *tok =
        with_template("{% for m in messages %}{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}"
                      "{{ m.content }}</s>{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n\n{% endfor %}");
    expect(tok, 3, "system>Be kind.\nuser>hello world\nassistant> hello  </s>\n", " hello  </s>", 0);
    tm_tokenizer_free(tok);
}

/* What ends with no token leaves a model without an end to learn. */
static void test_ends(void **state) {
    (void)state;
    static const struct {
        const char *source;
        bool ends;
    } cases[] = {
        {"{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}", true},
        {"{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", false},
        {"{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}</s>{% endfor %}", false},
        {"{{ messages[0].content }}</s>", false},
    };
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        tm_tokenizer *tok = with_template(cases[i].source);
        tm_ids ids = {0}, labels = {0};
        assert_ok(tm_chat_encode(tok, TM_CHAT_AUTO, talk, 5, false, &ids, &labels));
        assert_int_equal(tm__chat_ends(tok, &labels), cases[i].ends);
        tm_ids_free(&ids);
        tm_ids_free(&labels);
        tm_tokenizer_free(tok);
    }
}

static void test_borders(void **state) {
    (void)state;
    /* "the" runs into what stands before it: " the" is one token, and its border is counted */
    tm_tokenizer *tok = with_template("{% for m in messages %}{% generation %}{{ m.content[:1] }}{% endgeneration %}"
                                      "{{ m.content[1:] }}{% endfor %}");
    const tm_message one[] = {{"user", "the"}};
    tm_ids ids = {0}, labels = {0};
    size_t split = 0;
    assert_ok(tm__chat_encode(tok, TM_CHAT_AUTO, one, 1, false, &ids, &labels, &split));
    assert_int_equal(ids.len, 1);
    assert_int_equal(labels.data[0], -100);
    assert_int_equal(split, 1);
    tm_ids_free(&ids);
    tm_ids_free(&labels);
    tm_tokenizer_free(tok);
}

static void test_choice(void **state) {
    (void)state;
    tm_ids ids = {0};
    tm_tokenizer *tok = with_template("{{ bos_token }}{{ messages[0].content }}{{ extra }}");
    char *text = NULL;
    assert_int_equal(tm_chat_resolve(tok, TM_CHAT_AUTO), TM_CHAT_TEMPLATE);
    assert_ok(tm_tokenizer_use_template(tok, NULL, "{\"bos_token\": \"</s>\", \"extra\": [1]}"));
    assert_ok(tm_chat_render(tok, TM_CHAT_AUTO, talk, 5, false, &text, NULL));
    assert_string_equal(text, "</s>Be kind.[1]");
    free(text);
    assert_ok(tm_tokenizer_use_template(tok, "question", NULL));
    assert_int_equal(tm_chat_resolve(tok, TM_CHAT_AUTO), TM_CHAT_QUESTION);
    assert_int_equal(tm_tokenizer_use_template(tok, "no-such-file", NULL), TM_NOT_FOUND);
    assert_int_equal(tm_tokenizer_use_template(tok, "chatml", "[]"), TM_FORMAT);
    assert_int_equal(tm_chat_resolve(tok, TM_CHAT_AUTO), TM_CHAT_QUESTION); /* a failure changes nothing */
    char *path = tm__path_join(test_scratch(), "mine.jinja");
    assert_ok(tm__file_write(path, "{{ messages | length }}!", 24));
    assert_ok(tm_tokenizer_use_template(tok, path, NULL));
    assert_ok(tm_chat_encode(tok, TM_CHAT_AUTO, talk, 5, false, &ids, NULL));
    expect_text(tok, ids.data, ids.len, 0, "5!");
    assert_string_equal(tm_tokenizer_template(tok), path);
    assert_ok(tm_tokenizer_use_template(tok, "default", NULL));
    assert_string_equal(tm_tokenizer_template(tok), "here");
    free(path);
    tm_tokenizer_free(tok);
    /* one that does not parse harms nobody who does not use it, and is told by its line */
    tok = with_template("\n{% include 'x' %}");
    assert_int_equal(tm_chat_encode(tok, TM_CHAT_AUTO, talk, 5, false, &ids, NULL), TM_UNSUPPORTED);
    assert_non_null(strstr(tm_error_last()->line, "line 2: the tag 'include' is not supported"));
    assert_ok(tm_chat_encode(tok, TM_CHAT_CHATML, talk, 5, false, &ids, NULL));
    tm_ids_free(&ids);
    tm_tokenizer_free(tok);
}

/* Templates of a directory: named ones of tokenizer_config.json, and the file beside it, which counts more. What was
 * named goes with a saved model. */
static void test_files(void **state) {
    (void)state;
    static const char config[] = "{\"chat_template\": [{\"name\": \"default\", \"template\": \"one\"},"
                                 " {\"name\": \"rag\", \"template\": \"two\\n{{ raise_exception('no rag') }}\"}]}";
    char *text = NULL, *directory = tm__strdup(test_scratch()), *json = tiny_json(&(tiny_parts){0});
    char *files[] = {tm__path_join(directory, "tokenizer.json"), tm__path_join(directory, "tokenizer_config.json"),
                     tm__path_join(directory, "chat_template.jinja")};
    tm_tokenizer *tok = NULL;
    assert_ok(tm__file_write(files[0], json, strlen(json)));
    assert_ok(tm__file_write(files[1], config, strlen(config)));
    assert_ok(tm_tokenizer_load(directory, &tok));
    assert_ok(tm_chat_render(tok, TM_CHAT_AUTO, talk, 3, false, &text, NULL));
    assert_string_equal(text, "one");
    free(text);
    assert_ok(tm_tokenizer_use_template(tok, "rag", NULL));
    assert_int_equal(tm_chat_render(tok, TM_CHAT_AUTO, talk, 3, false, &text, NULL), TM_INVALID);
    assert_non_null(strstr(tm_error_last()->line, "tokenizer_config.json, chat_template \"rag\": line 2: no rag"));
    assert_ok(tm__chat_template_write(tok, directory));
    tm_tokenizer_free(tok);
    assert_ok(tm_tokenizer_load(directory, &tok));
    assert_string_equal(tm_tokenizer_template(tok), files[2]);
    assert_true(strncmp(tm__chat_template_default(tok), "two", 3) == 0);
    assert_ok(tm__file_write(files[2], "\xff", 1));
    tm_tokenizer_free(tok);
    assert_int_equal(tm_tokenizer_load(directory, &tok), TM_FORMAT);
    for (size_t i = 0; i < TM__COUNT(files); i++) free(files[i]);
    free(directory);
    free(json);
}

/* The text of a format is what its ids say; an Alpaca input joins the message before it where it has no place. */
static void test_text_of_formats(void **state) {
    (void)state;
    static const tm_message row[] = {
        {"system", "Be kind."}, {"user", "the</s>"}, {"input", "123"}, {"assistant", "hello"}};
    tm_tokenizer *tok = with_template("{% for m in messages %}{{ m.role }} {{ m.content }}</s>{% endfor %}");
    tok->bos = EOS;
    for (int f = TM_CHAT_CHATML; f <= TM_CHAT_TEMPLATE; f++) {
        tm_ids ids = {0};
        char *text = NULL;
        size_t len = 0;
        assert_ok(tm_chat_render(tok, (tm_chat_format)f, row, 4, false, &text, &len));
        assert_int_equal(len, strlen(text));
        assert_non_null(strstr(text, f == TM_CHAT_ALPACA ? "\n\n### Input:\n123\n\n" : "the</s>\n123"));
        assert_ok(tm_chat_encode(tok, (tm_chat_format)f, row, 4, false, &ids, NULL));
        expect_text(tok, ids.data, ids.len, 0, text);
        /* only a template's text is parsed for what a content spells */
        size_t ends = 0;
        for (size_t i = 0; i < ids.len; i++) ends += ids.data[i] == EOS;
        assert_int_equal(ends, f == TM_CHAT_TEMPLATE ? 4 : f == TM_CHAT_CHATML ? 0 : f == TM_CHAT_LLAMA2 ? 2 : 1);
        tm_ids_free(&ids);
        free(text);
    }
    tm_tokenizer_free(tok);
}

/* The world's template is the one that ChatML is written for, and executing it gives the same ids and labels. */
static void test_world_is_the_same(void **state) {
    (void)state;
    tm_world *world = NULL;
    tm_tokenizer *tok = NULL;
    size_t rows = 0;
    assert_ok(tm_world_create(1, &world));
    char *directory = tm__strdup(test_scratch());
    assert_non_null(directory);
    assert_ok(tm_world_write(world, directory));
    assert_ok(tm_tokenizer_load(directory, &tok));
    free(directory);
    assert_int_equal(tm_chat_resolve(tok, TM_CHAT_AUTO), TM_CHAT_CHATML);
    assert_string_equal(tm__chat_template_default(tok), tm__chatml_template);
    for (size_t s = 0; tm_world_set_name(s); s++) {
        tm_dataset *set = NULL;
        assert_ok(tm_world_set(world, tm_world_set_name(s), &set));
        size_t step = TM__MAX(tm_dataset_rows(set) / 20, (size_t)1);
        for (size_t r = 0; r < tm_dataset_rows(set); r += step, rows++) {
            tm_ids ids[2] = {{0}, {0}}, labels[2] = {{0}, {0}};
            size_t n;
            const tm_message *messages = tm_dataset_row(set, r, &n);
            bool ask = r % 2;
            assert_ok(tm_chat_encode(tok, TM_CHAT_CHATML, messages, n, ask, &ids[0], &labels[0]));
            assert_ok(tm_chat_encode(tok, TM_CHAT_TEMPLATE, messages, n, ask, &ids[1], &labels[1]));
            assert_int_equal(ids[0].len, ids[1].len);
            assert_memory_equal(ids[0].data, ids[1].data, ids[0].len * sizeof *ids[0].data);
            assert_memory_equal(labels[0].data, labels[1].data, labels[0].len * sizeof *labels[0].data);
            for (int i = 0; i < 2; i++) tm_ids_free(&ids[i]), tm_ids_free(&labels[i]);
        }
        tm_dataset_free(set);
    }
    assert_true(rows > 200);
    tm_tokenizer_free(tok);
    tm_world_free(world);
}

static void test_out_of_memory(void **state) {
    (void)state;
    tm_tokenizer *tok = with_template("{% for m in messages %}{{ m.role }}>{{ m.content }}</s>{% endfor %}");
    for (long n = 1;; n++) {
        tm_ids ids = {0}, labels = {0};
        tm__alloc_fail_at(n, false);
        tm_status status = tm_chat_encode(tok, TM_CHAT_TEMPLATE, talk, 3, false, &ids, &labels);
        bool failed = tm__alloc_has_failed();
        tm__alloc_fail_at(0, false);
        if (status != TM_OK) assert_int_equal(status, TM_NO_MEMORY);
        if (status != TM_OK) assert_int_equal(ids.len + labels.len, 0);
        tm_ids_free(&ids);
        tm_ids_free(&labels);
        if (!failed) break;
    }
    tm_tokenizer_free(tok);
}

/* A choice that runs out of memory leaves the one that was there. */
static void test_choice_out_of_memory(void **state) {
    (void)state;
    tm_tokenizer *tok = with_template("{{ messages[0].content }}");
    char *path = tm__path_join(test_scratch(), "mine.jinja");
    assert_ok(tm__file_write(path, "{{ messages | length }}!", 24));
    for (long n = 1;; n++) {
        char *text = NULL;
        tm__alloc_fail_at(n, false);
        tm_status status = tm_tokenizer_use_template(tok, path, "{\"x\": 1}");
        bool failed = tm__alloc_has_failed();
        tm__alloc_fail_at(0, false);
        if (status != TM_OK) assert_int_equal(status, TM_NO_MEMORY);
        assert_ok(tm_chat_render(tok, TM_CHAT_AUTO, talk, 1, false, &text, NULL));
        assert_string_equal(text, status == TM_OK ? "1!" : "Be kind.");
        free(text);
        assert_ok(tm_tokenizer_use_template(tok, "default", NULL));
        if (!failed) break;
    }
    free(path);
    tm_tokenizer_free(tok);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_found),
        cmocka_unit_test(test_generation_tag),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_borders),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_text_of_formats),
        cmocka_unit_test(test_choice_out_of_memory),
        cmocka_unit_test(test_world_is_the_same),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
