# CUDA, where LibTorch has it: ops' own kernels for NVIDIA devices (trireme/*/cuda). Sets TRIREME_CUDA_FOUND and
# TRIREME_CUDA_LIBRARIES (empty without). A toolkit that is not in the PATH: -DCMAKE_CUDA_COMPILER=/path/nvcc.
# Other devices than the default ones: -DCMAKE_CUDA_ARCHITECTURES=native, or a list.
#
# Included twice by TriremeTorch. Before find_package(Torch), it defines the targets that a CUDA LibTorch refers to:
# LibTorch's own configuration then leaves CUDA alone. That one aborts without a toolkit, ignores
# CMAKE_CUDA_ARCHITECTURES and adds flags to every CUDA file. After it, the targets get what they stand for.
set_property(CACHE TRIREME_WITH_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT TARGET torch::cudart)
  foreach(target torch::cudart torch::nvtoolsext torch::nvtx3 torch::cudnn torch::cusparselt caffe2::cuda
                 caffe2::nvrtc caffe2::cublas caffe2::cufft caffe2::curand)
    add_library(${target} INTERFACE IMPORTED)
  endforeach()
  return()
endif()

set(TRIREME_CUDA_FOUND OFF)
set(TRIREME_CUDA_LIBRARIES "")
if(TRIREME_WITH_CUDA AND TARGET torch_cuda)
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(TRIREME_NVCC nvcc PATHS /usr/local/cuda/bin)
    if(TRIREME_NVCC)
      set(CMAKE_CUDA_COMPILER "${TRIREME_NVCC}")
    endif()
  endif()
  if(CMAKE_CUDA_COMPILER OR DEFINED ENV{CUDACXX})
    set(TRIREME_CUDA_FOUND ON)
  endif()
endif()
if(TRIREME_WITH_CUDA STREQUAL "ON" AND NOT TRIREME_CUDA_FOUND)
  if(NOT TARGET torch_cuda)
    message(FATAL_ERROR "TRIREME_WITH_CUDA=ON needs a LibTorch with CUDA; the one in ${TORCH_INSTALL_PREFIX} is for the CPU")
  endif()
  message(FATAL_ERROR "TRIREME_WITH_CUDA=ON needs nvcc: put it in the PATH or give -DCMAKE_CUDA_COMPILER=/path/nvcc")
endif()
message(STATUS "Kernels for CUDA: ${TRIREME_CUDA_FOUND}")
if(NOT TRIREME_CUDA_FOUND)
  return()
endif()

if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  # A100, RTX 30, RTX 40 and L4, H100 and H200; newer ones compile the last one's intermediate code when they start.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90)
endif()
if(TRIREME_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${TRIREME_CCACHE}")
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # LibTorch's, in the same process
enable_language(CUDA)
# CMake 3.25 does not know yet that nvcc 12 has C++20.
foreach(form STANDARD EXTENSION)
  if(NOT CMAKE_CUDA20_${form}_COMPILE_OPTION)
    set(CMAKE_CUDA20_${form}_COMPILE_OPTION "-std=c++20")
  endif()
endforeach()
find_package(CUDAToolkit REQUIRED)

# Two CUDA runtimes in one process do not see each other's memory.
execute_process(COMMAND "${CMAKE_READELF}" -d "${TORCH_INSTALL_PREFIX}/lib/libc10_cuda.so"
                OUTPUT_VARIABLE trireme_needed ERROR_QUIET)
if(trireme_needed MATCHES "libcudart\\.so\\.([0-9]+)" AND NOT CMAKE_MATCH_1 EQUAL CUDAToolkit_VERSION_MAJOR)
  message(FATAL_ERROR "LibTorch is built for CUDA ${CMAKE_MATCH_1}, ${CMAKE_CUDA_COMPILER} is CUDA "
                      "${CUDAToolkit_VERSION}: give -DCMAKE_CUDA_COMPILER or -DTRIREME_WITH_CUDA=OFF")
endif()
set_property(TARGET torch::cudart PROPERTY INTERFACE_LINK_LIBRARIES CUDA::cudart)
set(TRIREME_CUDA_LIBRARIES torch_cuda CUDA::cublas CUDA::cudart)
