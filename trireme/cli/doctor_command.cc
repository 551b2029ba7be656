// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdio>

#include "trireme/cli/commands.h"
#include "trireme/train/doctor.h"

namespace trireme::cli {
namespace {

int run_doctor() {
  const DoctorReport report = examine_machine();
  std::size_t width = 0;
  for (const auto& [name, finding] : report.findings) width = std::max(width, name.size());
  for (const auto& [name, finding] : report.findings) {
    std::printf("%-*s  %s\n", static_cast<int>(width), name.c_str(), finding.c_str());
  }
  std::printf("\n%s\n", report.advice.empty() ? "Nothing to mend." : "To mend:");
  for (const std::string& advice : report.advice) std::printf("- %s\n", advice.c_str());
  return 0;
}

}  // namespace

void add_doctor_command(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("doctor", "what this machine can do, and what slows it down");
  command->footer("Example:  trireme doctor");
  command->callback([&action] { action = run_doctor; });
}

}  // namespace trireme::cli
