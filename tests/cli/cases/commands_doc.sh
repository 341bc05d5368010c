# docs/commands.md is what the program says of itself.
"$TEMPER_SOURCE/tools/commands-doc" temper >commands.md
diff -u "$TEMPER_SOURCE/docs/commands.md" commands.md || fail "run: tools/commands-doc build/temper > docs/commands.md"
