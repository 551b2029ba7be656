// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/mpi/mpi_process.h"

#include <mpi.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "trireme/base/error.h"
#include "trireme/comm/mpi/mpi_support.h"

namespace trireme {
namespace {

const char* level_name(int level) {
  if (level == MPI_THREAD_SINGLE) return "MPI_THREAD_SINGLE";
  if (level == MPI_THREAD_FUNNELED) return "MPI_THREAD_FUNNELED";
  if (level == MPI_THREAD_SERIALIZED) return "MPI_THREAD_SERIALIZED";
  return "MPI_THREAD_MULTIPLE";
}

bool is_initialized() {
  int flag = 0;
  MPI_Initialized(&flag);
  return flag != 0;
}

bool is_finalized() {
  int flag = 0;
  MPI_Finalized(&flag);
  return flag != 0;
}

// What an MPI launcher sets: OpenMPI's; MPICH's, Intel's and Slurm's; PMIx' of whoever speaks it.
bool has_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

// Ranks that MPI will have; 0 where the launcher does not say.
int launched_size() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* value = std::getenv(name);
    if (value == nullptr) continue;
    int size = 0;
    std::from_chars(value, value + std::strlen(value), size);
    return size;
  }
  return 0;
}

void check_level(int level, bool by_program) {
  if (level >= MPI_THREAD_SERIALIZED) return;
  throw_error<ConfigError>(
      "MPI gives this process {}, and the mpi engine needs MPI_THREAD_SERIALIZED at least: {}",
      level_name(level),
      by_program ? "initialise it by MPI_Init_thread with MPI_THREAD_MULTIPLE, or leave that to "
                   "Trireme"
                 : "use a build of MPI with threads");
}

}  // namespace

std::string mpi_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int size = 0;
  if (MPI_Get_library_version(text, &size) != MPI_SUCCESS) return "MPI";
  // The first words: "Open MPI v4.1.4, package: ..."; "MPICH Version:	4.0.2\n...".
  std::string name(text, std::string_view(text).find_first_of(",\n"));
  for (char& c : name) c = c == '\t' ? ' ' : c;
  return name;
}

void require_mpi(int world_size) {
  const std::lock_guard lock(MpiProcess::instance().mutex());
  int size = 0;
  if (is_finalized()) throw_error<ConfigError>("the mpi engine was asked for after MPI_Finalize");
  if (is_initialized()) {
    int level = MPI_THREAD_SINGLE;
    MPI_Query_thread(&level);
    check_level(level, true);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
  } else if (has_launcher()) {
    size = launched_size();
  } else {
    throw_error<ConfigError>(
        "the mpi engine was asked for, but no MPI launcher started this process; start it by "
        "mpirun, or by srun --mpi=pmix");
  }
  if (size != 0 && size != world_size) {
    throw_error<ConfigError>(
        "the mpi engine was asked for, but MPI has {} ranks and the world has {}; start as many by "
        "mpirun",
        size, world_size);
  }
}

std::string mpi_error_text(int code) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int size = 0;
  if (MPI_Error_string(code, text, &size) != MPI_SUCCESS) return fmt::format("error {}", code);
  return std::string(text, static_cast<std::size_t>(size));
}

MpiProcess& MpiProcess::instance() {
  static auto* const kProcess = new MpiProcess;  // finalize_at_exit() needs it
  return *kProcess;
}

void MpiProcess::start() {
  const std::lock_guard lock(mutex_);
  if (abandoned_) {
    throw_error<ConfigError>(
        "the mpi engine was asked for, but an earlier failure left messages in MPI that cannot be "
        "ended; start the process again");
  }
  if (is_initialized()) return;  // by the program; require_mpi() has looked at it
  int level = MPI_THREAD_SINGLE;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  std::atexit(finalize_at_exit);
  check_level(level, false);
}

bool MpiProcess::usable() const { return !abandoned_ && !is_finalized(); }

int MpiProcess::rank() {
  const std::lock_guard lock(mutex_);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

void MpiProcess::world_began() {
  const std::lock_guard lock(mutex_);
  ++worlds_;
}

void MpiProcess::world_ended(bool cleanly) {
  const std::lock_guard lock(mutex_);
  if (cleanly) --worlds_;
}

void MpiProcess::finalize_at_exit() {
  MpiProcess& process = instance();
  const std::lock_guard lock(process.mutex_);
  if (!process.usable() || process.worlds_ > 0) return;
  MPI_Finalize();
}

}  // namespace trireme
