# The example that opens temper.h, taken out of the comment: OUT gets the lines of IN between "* " and the end of main.
# Run as: cmake -DIN=... -DOUT=... -P header_example.cmake
file(READ ${IN} text)
string(FIND "${text}" "#include <stdio.h>" begin)
string(FIND "${text}" "\n * Conventions" end)
if(begin EQUAL -1 OR end LESS begin)
  message(FATAL_ERROR "${IN} does not open with an example")
endif()
math(EXPR length "${end} - ${begin}")
string(SUBSTRING "${text}" ${begin} ${length} text)
string(REGEX REPLACE "\n \\*(     )?" "\n" text "${text}")
file(WRITE ${OUT} "${text}")
