/* events.c: TensorBoard's event files.
 *
 * A file is a sequence of records (TFRecord): length as uint64, masked CRC32C of these eight bytes, the data, masked
 * CRC32C of the data, all little-endian; mask(c) = rotate_right(c, 15) + 0xa282ead8. The data is a protobuf message
 * tensorflow.Event: 1 wall_time (double), 2 step (int64), 3 file_version (string), 5 summary; a summary holds values
 * (1), a value its tag (1, string) and simple_value (2, float).
 * Pinned by tests/unit/test_report.c (CRC of RFC 3720, a file byte for byte) and read back by tools/parity/events.py.
 */
#include "lab/events.h"

/* Reflected polynomial 0x1edc6f41, RFC 3720 appendix B.4. */
uint32_t tm__crc32c(const void *data, size_t len) {
    const unsigned char *bytes = data;
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < len; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

static bool put_int(tm__string *out, uint64_t value, int bytes) {
    char text[8];
    for (int i = 0; i < bytes; i++) text[i] = (char)(value >> 8 * i);
    return tm__string_append(out, text, (size_t)bytes);
}

static bool put_crc(tm__string *out, const void *data, size_t len) {
    uint32_t crc = tm__crc32c(data, len);
    return put_int(out, (crc >> 15 | crc << 17) + 0xa282ead8u, 4);
}

static bool put_varint(tm__string *out, uint64_t value) {
    bool ok = true;
    for (; value >= 128 && ok; value >>= 7) ok = put_int(out, value | 128, 1);
    return ok && put_int(out, value, 1);
}

static bool put_double(tm__string *out, int field, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return put_varint(out, (uint64_t)field << 3 | 1) && put_int(out, bits, 8);
}

static bool put_bytes(tm__string *out, int field, const char *bytes, size_t len) {
    return put_varint(out, (uint64_t)field << 3 | 2) && put_varint(out, len) && tm__string_append(out, bytes, len);
}

static bool put_record(tm__string *out, const tm__string *event) {
    tm__string length = {0};
    bool ok = put_int(&length, event->len, 8) && tm__string_append(out, length.data, 8) &&
              put_crc(out, length.data, 8) && tm__string_append(out, event->data, event->len) &&
              put_crc(out, event->data, event->len);
    tm__string_free(&length);
    return ok;
}

bool tm__events_begin(tm__string *out, double wall_time) {
    static const char version[] = "brain.Event:2";
    tm__string event = {0};
    bool ok = put_double(&event, 1, wall_time) && put_bytes(&event, 3, version, sizeof version - 1) &&
              put_record(out, &event);
    tm__string_free(&event);
    return ok;
}

bool tm__events_add(tm__string *out, double wall_time, int64_t step, const char *tag, double value) {
    tm__string number = {0}, summary = {0}, event = {0};
    float single = (float)value;
    uint32_t bits;
    memcpy(&bits, &single, sizeof bits);
    bool ok = put_bytes(&number, 1, tag, strlen(tag)) && put_varint(&number, 2 << 3 | 5) && put_int(&number, bits, 4) &&
              put_bytes(&summary, 1, number.data, number.len) && put_double(&event, 1, wall_time) &&
              put_varint(&event, 2 << 3) && put_varint(&event, (uint64_t)step) &&
              put_bytes(&event, 5, summary.data, summary.len) && put_record(out, &event);
    tm__string_free(&number);
    tm__string_free(&summary);
    tm__string_free(&event);
    return ok;
}
