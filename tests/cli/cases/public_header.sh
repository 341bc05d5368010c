# The command line stands on temper.h and the C library alone.
cd "$TEMPER_SOURCE"
grep -hn '^#include "' cli/*.c cli/*.h | grep -v '"temper.h"\|"cli.h"' && fail "a private header in cli/"
if grep -n 'tm__' cli/*.c cli/*.h; then fail "a private name in cli/"; fi
for header in $(grep -h '^#include <' cli/*.c cli/*.h | sed 's/.*<\(.*\)>.*/\1/' | sort -u); do
    case $header in
    ctype.h | dirent.h | errno.h | fcntl.h | inttypes.h | math.h | signal.h | stdarg.h | stdio.h | stdlib.h | string.h | time.h | unistd.h | sys/*.h) ;;
    *) fail "$header is not of the C library" ;;
    esac
done
# Every part of the public header stands by itself, and temper.h has them all.
for header in include/*.h; do
    name=${header#include/}
    printf '#include <%s>\n' "$name" | cc -std=c11 -Wall -Wextra -Werror -pedantic -fsyntax-only -Iinclude -xc - ||
        fail "$name does not stand by itself"
    [ "$name" = temper.h ] && continue
    grep -q "^#include \"$name\"$" include/temper.h || fail "temper.h does not include $name"
    grep -q "^ \* $name  " include/temper.h || fail "temper.h does not say what lies in $name"
done
