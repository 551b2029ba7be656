# MPI for the engine mpi: OpenMPI, MPICH or one like them, by its C interface. Sets TRIREME_MPI_FOUND,
# TRIREME_MPI_LIBRARY (empty without MPI) and, for the tests, TRIREME_MPIEXEC.
# Several MPIs on one machine: -DMPI_C_COMPILER=mpicc.mpich -DMPIEXEC_EXECUTABLE=/usr/bin/mpiexec.mpich
set_property(CACHE TRIREME_WITH_MPI PROPERTY STRINGS AUTO ON OFF)
set(TRIREME_MPI_FOUND OFF)
set(TRIREME_MPI_LIBRARY "")
set(TRIREME_MPIEXEC "")
if(TRIREME_WITH_MPI)
  enable_language(C)  # FindMPI asks its compiler
  set(MPI_CXX_SKIP_MPICXX ON)
  if(TRIREME_WITH_MPI STREQUAL "AUTO")
    find_package(MPI QUIET COMPONENTS C)
  else()
    find_package(MPI REQUIRED COMPONENTS C)
  endif()
  if(MPI_C_FOUND)
    set(TRIREME_MPI_FOUND ON)
    set(TRIREME_MPI_LIBRARY trireme_mpi)
    set(TRIREME_MPIEXEC "${MPIEXEC_EXECUTABLE}")
    add_library(trireme_mpi INTERFACE)
    target_include_directories(trireme_mpi SYSTEM INTERFACE ${MPI_C_INCLUDE_DIRS})
    target_link_libraries(trireme_mpi INTERFACE ${MPI_C_LIBRARIES})
    # No C++ bindings, whichever MPI it is.
    target_compile_definitions(trireme_mpi INTERFACE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)
  endif()
  message(STATUS "Engine mpi: ${TRIREME_MPI_FOUND}")
endif()
