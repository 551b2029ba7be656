# Run after a test program is built: writes a file for ctest with one test per suite of the program.
#   cmake -D PROGRAM=file -D NAME=prefix -D OUTPUT=file -D "PROPERTIES=name value ..." -P suites.cmake
execute_process(COMMAND "${PROGRAM}" --gtest_list_tests
  OUTPUT_VARIABLE listing RESULT_VARIABLE failed TIMEOUT 60)
if(failed)
  message(FATAL_ERROR "${PROGRAM} --gtest_list_tests: ${failed}")
endif()
string(REGEX MATCHALL "(^|\n)[^ \n][^ \n]*\\.[^\n]*\n  " heads "${listing}")
set(tests "")
foreach(head IN LISTS heads)
  string(REGEX REPLACE "^\n?([^ \n]*)\\..*" "\\1" suite "${head}")
  string(APPEND tests
    "add_test([=[${NAME}.${suite}]=] [=[${PROGRAM}]=] [=[--gtest_filter=${suite}.*]=])\n"
    "set_tests_properties([=[${NAME}.${suite}]=] PROPERTIES ${PROPERTIES})\n")
endforeach()
if(NOT tests)
  message(FATAL_ERROR "${PROGRAM} has no tests")
endif()
file(WRITE "${OUTPUT}" "${tests}")
