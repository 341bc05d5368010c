/* classes.c: classes of characters, as the reference's normalizers and pre-tokenizers have them. */
#include "tokenizer/tokenizer.h"

#include <utf8proc.h>

static utf8proc_category_t category_of(uint32_t code) {
    return utf8proc_category((utf8proc_int32_t)code);
}

bool tm__is_space(uint32_t code) {
    return (code >= 9 && code <= 13) || code == 0x20 || code == 0x85 || code == 0xa0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f ||
           code == 0x3000;
}

bool tm__is_numeric(uint32_t code) {
    if (code < 0x80) return code >= '0' && code <= '9';
    utf8proc_category_t category = category_of(code);
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

/* All that is neither letter, digit, blank nor control in ASCII; beyond, the categories P. */
bool tm__is_punctuation(uint32_t code) {
    if (code < 0x80)
        return (code >= '!' && code <= '/') || (code >= ':' && code <= '@') || (code >= '[' && code <= '`') ||
               (code >= '{' && code <= '~');
    utf8proc_category_t category = category_of(code);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool tm__is_ideograph(uint32_t code) {
    return (code >= 0x4e00 && code <= 0x9fff) || (code >= 0x3400 && code <= 0x4dbf) ||
           (code >= 0x20000 && code <= 0x2a6df) || (code >= 0x2a700 && code <= 0x2b73f) ||
           (code >= 0x2b740 && code <= 0x2b81f) || (code >= 0x2b920 && code <= 0x2ceaf) ||
           (code >= 0xf900 && code <= 0xfaff) || (code >= 0x2f800 && code <= 0x2fa1f);
}

/* Alphabetic (which circled letters are), marks, decimal digits, connectors, joiners. */
bool tm__is_word(uint32_t code) {
    bool circled = (code >= 0x24b6 && code <= 0x24e9) || (code >= 0x1f130 && code <= 0x1f149) ||
                   (code >= 0x1f150 && code <= 0x1f169) || (code >= 0x1f170 && code <= 0x1f189);
    if (code == 0x200c || code == 0x200d || circled) return true;
    utf8proc_category_t category = category_of(code);
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) || category == UTF8PROC_CATEGORY_PC;
}

static bool is_mark(uint32_t code) {
    utf8proc_category_t category = category_of(code);
    return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

uint32_t tm__drop_marks(uint32_t code) {
    return code >= 0x300 && is_mark(code) ? TM__DROP : code;
}

uint32_t tm__drop_nonspacing(uint32_t code) {
    return code >= 0x300 && category_of(code) == UTF8PROC_CATEGORY_MN ? TM__DROP : code;
}

uint32_t tm__bert_clean(uint32_t code) {
    if (code == 0 || code == 0xfffd) return TM__DROP;
    if (code == '\t' || code == '\n' || code == '\r') return ' ';
    utf8proc_category_t category = category_of(code);
    bool control = category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF;
    if (control || category == UTF8PROC_CATEGORY_CO) return TM__DROP;
    return tm__is_space(code) ? ' ' : code;
}

uint32_t tm__nmt_clean(uint32_t code) {
    if ((code >= 1 && code <= 8) || code == 0xb || (code >= 0xe && code <= 0x1f) || code == 0x7f || code == 0x8f ||
        code == 0x9f)
        return TM__DROP;
    bool blank = code == 9 || code == 10 || code == 12 || code == 13 || code == 0x1680 ||
                 (code >= 0x200b && code <= 0x200f) || code == 0x2028 || code == 0x2029 || code == 0x2581 ||
                 code == 0xfeff || code == 0xfffd;
    return blank ? ' ' : code;
}
