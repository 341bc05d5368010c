# Not in the tree: functions that cannot be used safely, overlong files, marks of unfinished work, a library that
# prints or exits.
cd "$TEMPER_SOURCE"
sources=$(find src cli include tests tools -name '*.[ch]')
if grep -nE '\b(strcpy|strcat|sprintf|vsprintf|gets|atoi|atol|atof|strtok) ?\(' $sources; then fail "a banned function"; fi
if grep -nE '\b(TODO|FIXME|XXX)\b' $sources; then fail "unfinished work"; fi
for file in $sources; do
    [ "$(wc -l <"$file")" -le 800 ] || fail "$file has more than 800 lines"
done
if grep -nE '\b(exit|abort) ?\(|\b(printf|puts|perror) ?\(|\bstderr\b|\bstdout\b' $(find src -name '*.[ch]'); then
    fail "library code prints or exits"
fi
