# LibTorch, from wherever the user has it:
#   Debian                      nothing to say
#   zip of pytorch.org          -DCMAKE_PREFIX_PATH=/path/libtorch
#   pip wheel                   -DTRIREME_TORCH_PYTHON=/path/python
# Defines the target trireme_torch. Code that differs by version stands in trireme/ops/torch_version.h.
set(TRIREME_TORCH_PYTHON "" CACHE FILEPATH "python whose torch wheel is used")
if(TRIREME_TORCH_PYTHON AND NOT Torch_DIR)
  execute_process(
    COMMAND "${TRIREME_TORCH_PYTHON}" -c
            "import importlib.util as u, os; print(os.path.dirname(u.find_spec('torch').origin))"
    OUTPUT_VARIABLE trireme_torch_root OUTPUT_STRIP_TRAILING_WHITESPACE
    COMMAND_ERROR_IS_FATAL ANY)
  list(PREPEND CMAKE_PREFIX_PATH "${trireme_torch_root}")
endif()
include(TriremeCuda)
find_package(Torch REQUIRED)
include(TriremeCuda)
# A wheel and a zip bring an OpenMP of their own: one pool of threads for both of us.
file(GLOB trireme_gomp "${TORCH_INSTALL_PREFIX}/lib/libgomp*.so.1")
if(trireme_gomp)
  set(OpenMP_gomp_LIBRARY "${trireme_gomp}" CACHE FILEPATH "")
endif()
find_package(OpenMP REQUIRED COMPONENTS CXX)

add_library(trireme_torch INTERFACE)
# OpenMP: at::parallel_for is header-inline and silently serial in files compiled without it.
target_link_libraries(trireme_torch INTERFACE torch OpenMP::OpenMP_CXX)
target_include_directories(trireme_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
separate_arguments(trireme_torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
target_compile_options(trireme_torch INTERFACE ${trireme_torch_flags})
if(TRIREME_CUDA_FOUND)
  target_compile_definitions(trireme_torch INTERFACE TRIREME_WITH_CUDA)
endif()

# The part of LibTorch that our code of modules and functions includes, read once: trireme_precompiled(target).
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/precompiled.cc" CONTENT "")
add_library(trireme_precompiled OBJECT "${PROJECT_BINARY_DIR}/precompiled.cc")
target_link_libraries(trireme_precompiled PRIVATE trireme_torch)
target_precompile_headers(trireme_precompiled PRIVATE
  <torch/nn/module.h> <torch/nn/pimpl.h> <torch/types.h> <torch/csrc/autograd/custom_function.h>)
function(trireme_precompiled target)
  target_precompile_headers(${target} REUSE_FROM trireme_precompiled)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # The false alarms of -Wrestrict (TriremeToolchain) have more names behind a precompiled header.
    target_compile_options(${target} PRIVATE
      -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread)
  endif()
endfunction()
