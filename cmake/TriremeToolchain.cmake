# Compiler, linker and sanitizer settings shared by every target.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(TRIREME_CCACHE ccache)
if(TRIREME_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # What ccache wants to be told before it keeps files that use a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros "${TRIREME_CCACHE}")
endif()

find_program(TRIREME_MOLD mold)
if(TRIREME_MOLD AND CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
  add_link_options(-fuse-ld=mold)
endif()

# Our targets add these through trireme_warnings; third-party headers are SYSTEM and stay quiet.
add_library(trireme_warnings INTERFACE)
# nvcc has most of them from the host's compiler, which sees what it has made of a file: without -Wpedantic and the like.
set(trireme_cxx_warnings -Wall -Wextra -Wshadow $<$<BOOL:${TRIREME_WERROR}>:-Werror>)
set(trireme_cuda_warnings -Xcompiler=-Wall,-Wextra $<$<BOOL:${TRIREME_WERROR}>:-Werror=all-warnings>)
target_compile_options(trireme_warnings INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX,C>:${trireme_cxx_warnings}>" "$<$<COMPILE_LANGUAGE:CUDA>:${trireme_cuda_warnings}>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # False alarms inside std::string at -O3: GCC bug 105651, mended in 13.
  target_compile_options(trireme_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
# GCC sees uninitialised values in libstdc++'s own std::regex where a sanitizer instruments it.
if(TRIREME_SANITIZER AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(trireme_warnings INTERFACE -Wno-maybe-uninitialized)
endif()

if(TRIREME_SANITIZER)
  add_compile_options(-fsanitize=${TRIREME_SANITIZER} -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${TRIREME_SANITIZER})
  if(TRIREME_SANITIZER STREQUAL "undefined")
    # The first finding ends the test. Types of objects are not checked: that reads memory through a
    # file descriptor, and a test without free ones would be told of wrong types everywhere.
    add_compile_options(-fno-sanitize-recover=all -fno-sanitize=vptr)
  endif()
endif()

if(TRIREME_FUZZERS)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "TRIREME_FUZZERS needs Clang's libFuzzer; the compiler is ${CMAKE_CXX_COMPILER_ID}")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# For code that starts other code: half the time to compile, most of which goes into templates of CLI11 and gmock.
function(trireme_build_fast target)
  target_compile_options(${target} PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O1>)
endfunction()
