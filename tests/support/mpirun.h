// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Programs under the real mpirun, on this machine alone.
//
//   const ProgramResult result = run_under_mpirun(3, {program, "argument"});
//
// Where the build has no MPI, TRIREME_MPIEXEC is empty.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "tests/support/program.h"

namespace trireme::testing {

// More ranks than cores, by root in a container too, and nothing beyond this machine.
inline Program::Environment mpirun_environment() {
  return {{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
          {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
          {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
          {"OMPI_MCA_hwloc_base_binding_policy", "none"},
          {"OMPI_MCA_oob_tcp_if_include", "lo"},
          {"OMPI_MCA_btl_tcp_if_include", "lo"},
          // MPI itself is never built for a sanitizer, and what it leaves behind is not ours.
          {"TSAN_OPTIONS", "ignore_noninstrumented_modules=1"},
          {"ASAN_OPTIONS", "detect_leaks=0"}};
}

// The program n times; more is added to the environment.
inline ProgramResult run_under_mpirun(int n, const std::vector<std::string>& program,
                                      const Program::Environment& more = {}) {
  // Above the deadlines inside the programs.
  constexpr std::chrono::seconds kPatience{100};
  std::vector<std::string> command{TRIREME_MPIEXEC, "-n", std::to_string(n)};
  command.insert(command.end(), program.begin(), program.end());
  Program::Environment variables = mpirun_environment();
  variables.insert(variables.end(), more.begin(), more.end());
  return run_program(command, kPatience, variables);
}

}  // namespace trireme::testing
