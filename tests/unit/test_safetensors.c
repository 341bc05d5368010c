/* safetensors: round trips of every type, shards, misaligned data, malformed files, failing allocations and disks. */
#include "model/safetensors.h"
#include "support.h"

static const char *directory; /* scratch, one for the program */

static const char *at(const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

/* ---- round trips ------------------------------------------------------------------------------------------------- */

static void every_dtype(void **state) {
    (void)state;
    static uint8_t bytes[7][48]; /* six elements of at most eight bytes each */
    static const char *const names[7] = {"f64", "f32", "bf16", "f16", "i32", "u8", "i64"};
    tm__safetensors_entry entries[7];
    tm__rng r = tm__rng_make(1, tm__stream(TM__STREAM_TEST, 10));
    for (int i = 0; i < 7; i++) {
        for (int k = 0; k < 48; k++)
            bytes[i][k] = (uint8_t)tm__rng_u32(&r); /* any bits, NaNs too, come back as they are */
        entries[i] = (tm__safetensors_entry){names[i], (tm_dtype)i, {(tm_dtype)i, 2, {2, 3}, bytes[i]}, NULL, NULL};
    }
    assert_ok(tm__safetensors_write(directory, "all", entries, 7));
    tm__safetensors *file;
    assert_ok(tm__safetensors_open(at("all"), &file));
    assert_int_equal(tm__safetensors_count(file), 7);
    assert_string_equal(tm__safetensors_metadata(file, "format"), "pt");
    assert_null(tm__safetensors_metadata(file, "absent"));
    assert_string_equal(tm__safetensors_path(file), at("all"));
    for (int i = 0; i < 7; i++) {
        tm_tensor t;
        assert_ok(tm__safetensors_find(file, names[i], &t));
        assert_int_equal(t.dtype, i);
        assert_true(t.ndim == 2 && t.shape[0] == 2 && t.shape[1] == 3);
        assert_int_equal((uintptr_t)t.data % tm__dtype_size(t.dtype), 0);
        assert_memory_equal(t.data, bytes[i], tm__tensor_bytes(&t));
        if (i > 0)
            assert_true(strcmp(tm__safetensors_name(file, (size_t)i - 1), tm__safetensors_name(file, (size_t)i)) < 0);
    }
    tm_tensor t = {.ndim = 77};
    assert_int_equal(tm__safetensors_find(file, "absent", &t), TM_NOT_FOUND);
    assert_string_equal(tm_error_last()->field, "absent");
    assert_int_equal(t.ndim, 77);
    tm__safetensors_close(file);
    tm__safetensors_close(NULL);
}

static void odd_names_and_shapes(void **state) {
    (void)state;
    float value = 2.5f;
    const tm__safetensors_entry entries[] = {
        {"scalar", TM_F32, {TM_F32, 0, {0}, &value}, NULL, NULL},
        {"empty", TM_F32, {TM_F32, 2, {0, 5}, &value}, NULL, NULL},
        {"one\"two\\three\n\xc3\xa9", TM_F32, {TM_F32, 4, {1, 1, 1, 1}, &value}, NULL, NULL},
        {"", TM_F32, {TM_F32, 1, {1}, &value}, NULL, NULL},
    };
    tm__safetensors *file;
    tm_tensor t;
    assert_ok(tm__safetensors_write(directory, "odd", entries, 4));
    assert_ok(tm__safetensors_open(at("odd"), &file));
    for (int i = 0; i < 4; i++) {
        assert_ok(tm__safetensors_find(file, entries[i].name, &t));
        assert_true(tm__tensor_same_shape(&t, &entries[i].source));
        if (i != 1) assert_true(*(float *)t.data == 2.5f);
    }
    tm__safetensors_close(file);
    assert_ok(tm__safetensors_write(directory, "none", NULL, 0));
    assert_ok(tm__safetensors_open(at("none"), &file));
    assert_int_equal(tm__safetensors_count(file), 0);
    tm__safetensors_close(file);
}

/* The bytes of a small file, written out by hand: what other programs read must not drift. */
static void exact_bytes(void **state) {
    (void)state;
    const float one = 1;
    const uint8_t two[2] = {7, 8};
    const tm__safetensors_entry entries[] = {{"b", TM_U8, {TM_U8, 1, {2}, (void *)two}, NULL, NULL},
                                             {"a", TM_F32, {TM_F32, 1, {1}, (void *)&one}, NULL, NULL}};
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                 "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                                 "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[4,6]}}";
    char *data;
    size_t len, padded = (sizeof header - 1 + 7) / 8 * 8;
    assert_ok(tm__safetensors_write(directory, "exact", entries, 2));
    assert_ok(tm__file_read(at("exact"), 0, &data, &len));
    assert_int_equal(len, 8 + padded + 6);
    assert_int_equal((unsigned char)data[0], padded);
    assert_memory_equal(data + 1, "\0\0\0\0\0\0\0", 7);
    assert_memory_equal(data + 8, header, sizeof header - 1);
    for (size_t i = sizeof header - 1; i < padded; i++) assert_int_equal(data[8 + i], ' ');
    assert_memory_equal(data + 8 + padded, "\0\0\x80\x3f\x07\x08", 6);
    free(data);
}

typedef struct counted {
    const float *values;
    size_t next, largest;
} counted;

static tm_status produce(void *user, size_t first, size_t n, void *out) {
    counted *c = user;
    assert_int_equal(first, c->next);
    c->next += n;
    c->largest = TM__MAX(c->largest, n);
    memcpy(out, c->values + first, n * sizeof(float));
    return TM_OK;
}

static tm_status refuse(void *user, size_t first, size_t n, void *out) {
    (void)user, (void)n, (void)out;
    return first == 0 ? TM_OK : tm__fail(TM_INTERRUPTED, NULL, NULL, NULL, "enough");
}

static void converted_in_chunks(void **state) {
    (void)state;
    enum { N = 300007 };
    float *values = tm__alloc(N, sizeof *values);
    tm__rng r = tm__rng_make(2, tm__stream(TM__STREAM_TEST, 11));
    for (int i = 0; i < N; i++) values[i] = (float)tm__rng_normal(&r);
    counted c = {values, 0, 0};
    const tm__safetensors_entry entries[] = {{"memory", TM_BF16, {TM_F32, 1, {N}, values}, NULL, NULL},
                                             {"produced", TM_BF16, {TM_F32, 1, {N}, NULL}, produce, &c}};
    tm__safetensors *file;
    assert_ok(tm__safetensors_write(directory, "chunks", entries, 2));
    assert_int_equal(c.next, N);
    assert_true(c.largest <= 65536);
    assert_ok(tm__safetensors_open(at("chunks"), &file));
    for (int k = 0; k < 2; k++) {
        tm_tensor t;
        assert_ok(tm__safetensors_find(file, entries[k].name, &t));
        for (int i = 0; i < N; i++) assert_int_equal(((uint16_t *)t.data)[i], tm__bf16_from_f32(values[i]));
    }
    tm__safetensors_close(file);
    const tm__safetensors_entry stopping = {"w", TM_F32, {TM_F32, 1, {N}, NULL}, refuse, NULL};
    assert_int_equal(tm__safetensors_write(directory, "stopped", &stopping, 1), TM_INTERRUPTED);
    free(values);
}

static void not_writable(void **state) {
    (void)state;
    float values[] = {1, 70000};
    int32_t integer = 1;
    tm__safetensors_entry e = {"w", TM_F16, {TM_F32, 1, {2}, values}, NULL, NULL};
    assert_int_equal(tm__safetensors_write(directory, "overflow", &e, 1), TM_NUMERIC);
    assert_string_equal(tm_error_last()->field, "w");
    values[0] = INFINITY; /* what was not finite before is passed on */
    assert_ok(tm__safetensors_write(directory, "overflow", &e, 1));
    e = (tm__safetensors_entry){"w", TM_F32, {TM_I32, 1, {1}, &integer}, NULL, NULL};
    assert_int_equal(tm__safetensors_write(directory, "x", &e, 1), TM_INVALID);
    e = (tm__safetensors_entry){"w\xff", TM_I32, {TM_I32, 1, {1}, &integer}, NULL, NULL};
    assert_int_equal(tm__safetensors_write(directory, "x", &e, 1), TM_INVALID);
    e.name = "w";
    assert_int_equal(tm__safetensors_write(at("absent"), "x", &e, 1), TM_IO);
    assert_int_equal(tm__safetensors_write("/dev", "full", &e, 1), TM_IO);
    assert_non_null(strstr(tm_error_last()->line, "No space left"));
}

/* ---- files made by hand ------------------------------------------------------------------------------------------ */

/* Writes a file of this header (padded to `header_len` with spaces, 0: as it is) and `data_len` counted bytes. */
static const char *raw(const char *name, const char *header, size_t header_len, size_t data_len) {
    size_t len = strlen(header);
    if (header_len < len) header_len = len;
    uint8_t *bytes = tm__alloc(8 + header_len + data_len, 1);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(header_len >> (8 * i));
    memset(bytes + 8, ' ', header_len);
    memcpy(bytes + 8, header, len);
    for (size_t i = 0; i < data_len; i++) bytes[8 + header_len + i] = (uint8_t)i;
    assert_ok(tm__file_write(at(name), bytes, 8 + header_len + data_len));
    free(bytes);
    return at(name);
}

#define ENTRY(name, dtype, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void misaligned(void **state) {
    (void)state;
    static const char header[] = "{" ENTRY("byte", "U8", "[1]", 0, 1) "," ENTRY("wide", "F64", "[2]", 1, 17) "," ENTRY(
        "half", "BF16", "[3]", 17, 23) "}";
    for (size_t pad = 0; pad < 8; pad++) {
        tm__safetensors *file;
        tm_tensor wide, half, again;
        assert_ok(tm__safetensors_open(raw("misaligned", header, sizeof header - 1 + pad, 23), &file));
        assert_ok(tm__safetensors_find(file, "wide", &wide));
        assert_ok(tm__safetensors_find(file, "half", &half));
        assert_int_equal((uintptr_t)wide.data % 8, 0);
        assert_int_equal((uintptr_t)half.data % 2, 0);
        for (int i = 0; i < 16; i++) assert_int_equal(((uint8_t *)wide.data)[i], 1 + i);
        for (int i = 0; i < 6; i++) assert_int_equal(((uint8_t *)half.data)[i], 17 + i);
        assert_ok(tm__safetensors_find(file, "wide", &again));
        assert_ptr_equal(again.data, wide.data); /* one copy, not one per call */
        tm__safetensors_close(file);
    }
}

/* Types and shapes that the format has and tm_tensor has not: the file opens, the tensor says why not. */
static void beyond_tm_tensor(void **state) {
    (void)state;
    tm__safetensors *file;
    tm_tensor t;
    assert_ok(tm__safetensors_open(raw("beyond",
                                       "{" ENTRY("mask", "BOOL", "[3]", 0, 3) "," ENTRY(
                                           "five", "U8", "[1,1,1,1,3]", 3, 6) "," ENTRY("w", "U8", "[2]", 6, 8) "}",
                                       0, 8),
                                   &file));
    assert_int_equal(tm__safetensors_find(file, "mask", &t), TM_UNSUPPORTED);
    assert_string_equal(tm_error_last()->field, "mask");
    assert_int_equal(tm__safetensors_find(file, "five", &t), TM_UNSUPPORTED);
    assert_ok(tm__safetensors_find(file, "w", &t));
    tm__safetensors_close(file);
}

static const struct malformed {
    const char *header;
    size_t data_len;
    const char *field, *says;
} malformed[] = {
    {"", 0, "header", "must begin"},
    {"[]", 0, "header", "must begin"},
    {" {}", 0, "header", "must begin"},
    {"{", 0, "line 1", ""},
    {"{}}", 0, "line 1", "end of file"},
    {"{}", 3, "data_offsets", "3 bytes at the end"},
    {"{\"w\":[]}", 0, "w", "must be an object"},
    {"{\"w\":{}}", 0, "w", "dtype must be a string"},
    {"{\"w\":{\"dtype\":\"F32\"}}", 0, "w", "shape must be an array"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "w", "data_offsets must be two integers"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "w", "two integers"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "w", "two integers"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{\"0\":0,\"1\":4}}}", 4, "w", "two integers"},
    {"{" ENTRY("w", "F33", "[1]", 0, 4) "}", 4, "w", "dtype 'F33' is unknown"},
    {"{" ENTRY("w", "f32", "[1]", 0, 4) "}", 4, "w", "dtype 'f32' is unknown"},
    {"{" ENTRY("w", "F32", "[-1]", 0, 4) "}", 4, "w", "shape must hold integers"},
    {"{" ENTRY("w", "F32", "[1.0]", 0, 4) "}", 4, "w", "shape must hold integers"},
    {"{" ENTRY("w", "F32", "[99999999999999999999]", 0, 4) "}", 4, "w", "shape must hold integers"},
    {"{" ENTRY("w", "F32", "[4611686018427387904,4]", 0, 4) "}", 4, "w", "shape is too large"},
    {"{" ENTRY("w", "F32", "[4294967296,4294967296]", 0, 0) "}", 0, "w", "shape is too large"},
    {"{" ENTRY("w", "F64", "[2305843009213693952]", 0, 0) "}", 0, "w", "shape is too large"},
    {"{" ENTRY("w", "F32", "[2]", 0, 4) "}", 4, "w", "span 4 bytes, shape and dtype need 8"},
    {"{" ENTRY("w", "F32", "[1]", 0, 8) "}", 8, "w", "span 8 bytes, shape and dtype need 4"},
    {"{" ENTRY("w", "F32", "[2]", 0, 8) "}", 4, "w", "past the end"},
    {"{" ENTRY("w", "F32", "[1]", 4, 0) "}", 4, "w", "not in order"},
    {"{" ENTRY("w", "F32", "[1]", -4, 0) "}", 4, "w", "not in order"},
    {"{" ENTRY("w", "F32", "[1]", 9223372036854775803, 9223372036854775807) "}", 4, "w", "past the end"},
    {"{" ENTRY("w", "F32", "[1]", 18446744073709551612, 18446744073709551616) "}", 4, "w", "two integers"},
    {"{" ENTRY("w", "F32", "[1]", 4, 8) "}", 8, "w", "hole before"},
    {"{" ENTRY("v", "F32", "[2]", 0, 8) "," ENTRY("w", "F32", "[1]", 4, 8) "}", 8, "w", "overlap"},
    {"{" ENTRY("v", "F32", "[1]", 0, 4) "," ENTRY("w", "F32", "[1]", 0, 4) "}", 4, "w", "overlap"},
    {"{" ENTRY("v", "F32", "[1]", 0, 4) "," ENTRY("w", "F32", "[1]", 8, 12) "}", 12, "w", "hole before"},
    {"{" ENTRY("w", "F32", "[1]", 0, 4) "," ENTRY("w", "F32", "[1]", 0, 4) "}", 4, "line 1", "duplicate"},
    {"{" ENTRY("w\xff", "F32", "[1]", 0, 4) "}", 4, "line 1", "decode"},
    {"{" ENTRY("w\\u0000", "F32", "[1]", 0, 4) "}", 4, "line 1", "NUL"},
    {"{\"__metadata__\":[]}", 0, "__metadata__", "must be an object"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__", "must hold strings"},
};

static void expect_malformed(const char *path, const char *field, const char *says) {
    tm__safetensors *file = NULL;
    tm_status status = tm__safetensors_open(path, &file);
    const tm_error *e = tm_error_last();
    if (status != TM_FORMAT || file || !strstr(e->field, field) || !strstr(e->message, says) ||
        strcmp(e->file, path) != 0)
        fail_msg("%s %s: %s: %s", field, says, tm_status_name(status), e->line);
}

static void malformed_headers(void **state) {
    (void)state;
    for (size_t i = 0; i < TM__COUNT(malformed); i++)
        expect_malformed(raw("bad", malformed[i].header, 0, malformed[i].data_len), malformed[i].field,
                         malformed[i].says);
}

static void malformed_lengths(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *says;
        size_t len;
    } cases[] = {
        {"", "shorter than 8 bytes", 0},
        {"\2\0\0\0\0\0\0", "shorter than 8 bytes", 7},
        {"\2\0\0\0\0\0\0\0", "2 bytes are more than the file has", 8},
        {"\3\0\0\0\0\0\0\0{}", "3 bytes are more than the file has", 10},
        {"\1\xe1\xf5\5\0\0\0\0{}", "100000001 is above the format's limit", 10},
        {"\xff\xff\xff\xff\xff\xff\xff\xff{}", "18446744073709551615 is above", 10},
        {"PK\3\4\x14\0\0\0{}", "is above", 10},
    };
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        assert_ok(tm__file_write(at("bad"), cases[i].bytes, cases[i].len));
        expect_malformed(at("bad"), "header length", cases[i].says);
    }
    char *deep = tm__alloc(100001, 1);
    memset(deep, '[', 100000);
    memcpy(deep, "{\"w\":", 5);
    deep[100000] = 0;
    expect_malformed(raw("bad", deep, 0, 0), "line 1", "nested too deeply");
    free(deep);
    tm__safetensors *file = NULL;
    assert_int_equal(tm__safetensors_open(at("absent"), &file), TM_NOT_FOUND);
    assert_int_equal(tm__safetensors_open(directory, &file), TM_IO);
    assert_null(file);
}

/* Every prefix of a good file is refused, and so is every single changed header byte or accepted for a reason that
 * keeps the tensors inside the file (ASan watches). */
static void cut_and_changed(void **state) {
    (void)state;
    const char *header = "{" ENTRY("v", "F32", "[2]", 0, 8) "," ENTRY("w", "BF16", "[1,2]", 8, 12) "}";
    char *data;
    size_t len;
    assert_ok(tm__file_read(raw("good", header, 0, 12), 0, &data, &len));
    for (size_t cut = 0; cut < len; cut++) {
        tm__safetensors *file = NULL;
        assert_ok(tm__file_write(at("cut"), data, cut));
        assert_int_equal(tm__safetensors_open(at("cut"), &file), TM_FORMAT);
    }
    for (size_t i = 0; i < len - 12; i++) {
        tm__safetensors *file = NULL;
        char kept = data[i];
        data[i] ^= (char)(1 << i % 7);
        assert_ok(tm__file_write(at("cut"), data, len));
        tm_status status = tm__safetensors_open(at("cut"), &file);
        for (size_t k = 0; status == TM_OK && k < tm__safetensors_count(file); k++) {
            tm_tensor t;
            if (tm__safetensors_at(file, k, &t) == TM_OK) (void)tm__tensor_check_finite(&t, "cut", "w");
        }
        assert_true(status == TM_OK || status == TM_FORMAT);
        tm__safetensors_close(file);
        data[i] = kept;
    }
    free(data);
}

/* ---- checkpoints ------------------------------------------------------------------------------------------------- */

static void write_text(const char *path, const char *text) {
    assert_ok(tm__file_write(path, text, strlen(text)));
}

static void sharded(void **state) {
    (void)state;
    static float values[5][10];
    static const char *const names[5] = {"e", "a", "d", "b", "c"};
    tm__safetensors_entry entries[5];
    for (int i = 0; i < 5; i++) {
        for (int k = 0; k < 10; k++) values[i][k] = (float)(10 * i + k);
        entries[i] = (tm__safetensors_entry){names[i], TM_F32, {TM_F32, 1, {10}, values[i]}, NULL, NULL};
    }
    static const struct {
        int64_t shard_bytes;
        const char *there, *absent;
    } cases[] = {{80, "model-00003-of-00003.safetensors", "model.safetensors"},
                 {1, "model-00005-of-00005.safetensors", "model.safetensors"},
                 {200, "model.safetensors", "model.safetensors.index.json"},
                 {0, "model.safetensors", "model.safetensors.index.json"}};
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        tm__checkpoint *c;
        char target[512], name[600];
        snprintf(target, sizeof target, "%s/shards%zu", directory, i);
        assert_ok(tm__make_directories(target));
        assert_ok(tm__checkpoint_write(target, "model", entries, 5, cases[i].shard_bytes));
        snprintf(name, sizeof name, "%s/%s", target, cases[i].there);
        assert_true(tm__path_exists(name));
        snprintf(name, sizeof name, "%s/%s", target, cases[i].absent);
        assert_false(tm__path_exists(name));
        assert_ok(tm__checkpoint_open(target, "model", &c));
        assert_int_equal(tm__checkpoint_count(c), 5);
        for (size_t k = 0; k < 5; k++) {
            tm_tensor t;
            const char expected[] = {(char)('a' + k), 0};
            assert_string_equal(tm__checkpoint_name(c, k), expected);
            assert_int_equal(tm__checkpoint_index(c, names[k]), names[k][0] - 'a');
            assert_true(tm__path_exists(tm__checkpoint_file(c, k)));
            assert_ok(tm__checkpoint_find(c, names[k], &t));
            assert_memory_equal(t.data, values[k], sizeof values[k]);
        }
        tm_tensor t;
        assert_int_equal(tm__checkpoint_find(c, "f", &t), TM_NOT_FOUND);
        assert_int_equal(tm__checkpoint_index(c, "f"), -1);
        tm__checkpoint_close(c);
    }
    char *index;
    assert_ok(tm__file_read(at("shards0/model.safetensors.index.json"), 0, &index, NULL));
    assert_non_null(strstr(index, "\"total_size\": 200"));
    assert_non_null(strstr(index, "\"d\": \"model-00002-of-00003.safetensors\""));
    free(index);
    tm__checkpoint_close(NULL);
}

static void adapter_stem(void **state) {
    (void)state;
    float value = 1;
    const tm__safetensors_entry e = {"lora_A", TM_F32, {TM_F32, 1, {1}, &value}, NULL, NULL};
    tm__checkpoint *c;
    assert_ok(tm__make_directories(at("adapter")));
    assert_ok(tm__checkpoint_write(at("adapter"), "adapter_model", &e, 1, 0));
    assert_true(tm__path_exists(at("adapter/adapter_model.safetensors")));
    assert_ok(tm__checkpoint_open(at("adapter"), "adapter_model", &c));
    tm__checkpoint_close(c);
    assert_int_equal(tm__checkpoint_open(at("adapter"), "model", &c), TM_NOT_FOUND);
    assert_string_equal(tm_error_last()->file, at("adapter"));
    write_text(at("adapter/pytorch_model.bin"), "x");
    assert_int_equal(tm__checkpoint_open(at("adapter"), "model", &c), TM_NOT_FOUND);
    assert_non_null(strstr(tm_error_last()->hint, "convert"));
    assert_int_equal(tm__checkpoint_open(at("absent"), "model", &c), TM_NOT_FOUND);
    assert_non_null(strstr(tm_error_last()->line, "no such directory"));
}

static void bad_indexes(void **state) {
    (void)state;
    static const struct {
        const char *index, *file, *field, *says;
        tm_status status;
    } cases[] = {
        {"{", "index.json", "line 1", "", TM_FORMAT},
        {"{}", "index.json", "weight_map", "must be an object", TM_FORMAT},
        {"{\"weight_map\": []}", "index.json", "weight_map", "must be an object", TM_FORMAT},
        {"{\"weight_map\": {\"w\": 1}}", "index.json", "w", "must be a file name", TM_FORMAT},
        {"{\"weight_map\": {\"w\": \"a\\u0000b\"}}", "index.json", "w", "must be a file name", TM_FORMAT},
        {"{\"weight_map\": {\"w\": \"../s1\"}}", "index.json", "w", "is no file name", TM_FORMAT},
        {"{\"weight_map\": {\"w\": \"/etc/passwd\"}}", "index.json", "w", "is no file name", TM_FORMAT},
        {"{\"weight_map\": {\"w\": \"..\"}}", "index.json", "w", "is no file name", TM_FORMAT},
        {"{\"weight_map\": {\"w\": \"\"}}", "index.json", "w", "is no file name", TM_FORMAT},
        {"{\"weight_map\": {\"w\": \"s2\"}}", "s2", "w", "names a file that is absent", TM_NOT_FOUND},
        {"{\"weight_map\": {\"w\": \"s1\", \"x\": \"s1\"}}", "s1", "x", "this file holds the tensor", TM_NOT_FOUND},
        {"{\"weight_map\": {\"w\": \"s3\"}}", "s3", "header length", "shorter", TM_FORMAT},
    };
    float value = 1;
    const tm__safetensors_entry e = {"w", TM_F32, {TM_F32, 1, {1}, &value}, NULL, NULL};
    assert_ok(tm__make_directories(at("index")));
    assert_ok(tm__safetensors_write(at("index"), "s1", &e, 1));
    write_text(at("index/s3"), "");
    tm__checkpoint *c = NULL;
    for (size_t i = 0; i < TM__COUNT(cases); i++) {
        write_text(at("index/model.safetensors.index.json"), cases[i].index);
        tm_status status = tm__checkpoint_open(at("index"), "model", &c);
        const tm_error *error = tm_error_last();
        if (status != cases[i].status || c || !strstr(error->file, cases[i].file) ||
            !strstr(error->field, cases[i].field) || !strstr(error->message, cases[i].says))
            fail_msg("%s: %s: %s", cases[i].index, tm_status_name(status), error->line);
    }
    write_text(at("index/model.safetensors.index.json"), "{\"weight_map\": {\"w\": \"s1\"}}");
    assert_ok(tm__checkpoint_open(at("index"), "model", &c));
    assert_int_equal(tm__checkpoint_count(c), 1);
    tm__checkpoint_close(c);
}

/* ---- failing allocations ----------------------------------------------------------------------------------------- */

static tm_status write_and_read(const char *target, const tm__safetensors_entry *entries, size_t n) {
    tm__checkpoint *c = NULL;
    tm_tensor t;
    TM__TRY(tm__checkpoint_write(target, "model", entries, n, 100));
    TM__TRY(tm__checkpoint_open(target, "model", &c));
    tm_status status = TM_OK;
    for (size_t i = 0; i < n && status == TM_OK; i++) status = tm__checkpoint_find(c, entries[i].name, &t);
    tm__checkpoint_close(c);
    return status;
}

static void failing_allocations(void **state) {
    (void)state;
    static float values[30];
    const tm__safetensors_entry entries[] = {{"a", TM_F32, {TM_F32, 2, {5, 6}, values}, NULL, NULL},
                                             {"b", TM_BF16, {TM_F32, 1, {30}, values}, NULL, NULL},
                                             {"c", TM_F16, {TM_F32, 1, {3}, values}, NULL, NULL}};
    assert_ok(tm__make_directories(at("oom")));
    for (int sticky = 0; sticky < 2; sticky++) {
        bool done = false;
        long failed = 0;
        for (long n = 1; !done; n++) {
            tm__alloc_fail_at(n, sticky);
            tm_status status = write_and_read(at("oom"), entries, TM__COUNT(entries));
            tm__alloc_fail_at(0, false);
            done = status == TM_OK;
            failed += !done;
            if (!done && status != TM_NO_MEMORY) fail_msg("%ld: %s", n, tm_error_last()->line);
            assert_true(n < 5000);
        }
        assert_true(failed > 50);
    }
    static const char header[] =
        "{\"__metadata__\":{\"k\":\"v\"}," ENTRY("byte", "U8", "[1]", 0, 1) "," ENTRY("wide", "F64", "[2]", 1, 17) "}";
    const char *path = raw("oom-misaligned", header, 0, 17);
    tm_status status = TM_NO_MEMORY;
    for (long n = 1; status != TM_OK; n++) {
        tm__safetensors *file = NULL;
        tm_tensor t;
        tm__alloc_fail_at(n, false);
        status = tm__safetensors_open(path, &file);
        if (status == TM_OK) status = tm__safetensors_find(file, "wide", &t);
        tm__alloc_fail_at(0, false);
        tm__safetensors_close(file);
        assert_true(status == TM_OK || status == TM_NO_MEMORY);
        assert_true(n < 1000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dtype),       cmocka_unit_test(odd_names_and_shapes),
        cmocka_unit_test(exact_bytes),       cmocka_unit_test(converted_in_chunks),
        cmocka_unit_test(not_writable),      cmocka_unit_test(misaligned),
        cmocka_unit_test(beyond_tm_tensor),  cmocka_unit_test(malformed_headers),
        cmocka_unit_test(malformed_lengths), cmocka_unit_test(cut_and_changed),
        cmocka_unit_test(sharded),           cmocka_unit_test(adapter_stem),
        cmocka_unit_test(bad_indexes),       cmocka_unit_test(failing_allocations),
    };
    directory = test_scratch();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
