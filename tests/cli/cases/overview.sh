# What a first look shows, and that all ways to it show the same.
temper
temper --version
temper >first
temper help >second
temper --help >third
temper -h >fourth
cmp first second
cmp first third
cmp first fourth
temper help generate >first
temper generate --help >second
temper generate -h >third
cmp first second
cmp first third
