# Run at every build: cmake -DSOURCE=folder -DHEADER=path -P TriremeCommit.cmake
# Writes the header with TRIREME_COMMIT, but only when it changes, so that nothing else is rebuilt.
cmake_minimum_required(VERSION 3.25)
execute_process(
  COMMAND git -C "${SOURCE}" describe --always --dirty --abbrev=9 --exclude *
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed OR commit STREQUAL "")
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT "${HEADER}" CONTENT "#define TRIREME_COMMIT \"@commit@\"\n" @ONLY)
