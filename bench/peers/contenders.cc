// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "bench/peers/contenders.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "bench/peers/run_command.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"

namespace trireme::peers {
namespace {

// OpenMPI as it comes, over shared memory, never busy on a core that another rank needs, and the
// settings that users try when it is slow. Algorithm numbers are those of `ompi_info --param coll
// tuned --level 9`.
struct MpiSetting {
  std::string name;
  std::vector<std::string> options;
  std::vector<std::string> only;
};

std::vector<MpiSetting> mpi_settings() {
  const auto tuned = [](const std::string& algorithm) {
    return std::vector<std::string>{"--mca", "coll_tuned_use_dynamic_rules",   "1",
                                    "--mca", "coll_tuned_allreduce_algorithm", algorithm};
  };
  return {{"openmpi", {}, {}},
          {"openmpi-ring", tuned("4"), {"all_reduce"}},
          {"openmpi-rabenseifner", tuned("6"), {"all_reduce"}},
          {"openmpi-han", {"--mca", "coll_han_priority", "100"}, {}}};
}

Contender mpi_contender(const MpiSetting& setting, const std::string& folder) {
  Contender contender{.name = setting.name, .command = {}, .ranks_option = "-n", .only = {}};
  contender.command = {
      "mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca",
      "btl",    "self,vader"};
  contender.command.insert(contender.command.end(), setting.options.begin(), setting.options.end());
  contender.ranks_at = contender.command.size();
  contender.command.insert(contender.command.end(), {folder + "/mpi_peer", "--name", setting.name});
  contender.only = setting.only;
  return contender;
}

double number(const nlohmann::json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

CommBenchRow parse_row(const std::string& line) {
  const nlohmann::json json = nlohmann::json::parse(line);
  return {.op = json["op"],
          .engine = json["engine"],
          .memory = json["memory"],
          .ranks = json["ranks"],
          .dtype = parse_dtype(json["dtype"].get<std::string>()),
          .bytes = json["bytes"],
          .us = {.median = number(json["median_us"]),
                 .p10 = number(json["p10_us"]),
                 .p90 = number(json["p90_us"])},
          .bus_gb_per_s = number(json["bus_gb_per_s"]),
          .share_of_limit = number(json["share_of_limit"])};
}

}  // namespace

std::vector<Contender> contenders(const std::string& program, const std::string& folder,
                                  const std::vector<std::string>& engines) {
  std::vector<Contender> all;
  for (const std::string& engine : engines) {
    all.push_back({.name = "trireme " + engine,
                   .ours = true,
                   .command = {program, "bench", "comm", "--json", "--engine", engine},
                   .ranks_option = "--ranks",
                   .ranks_at = 6,
                   .only = {}});
  }
  all.push_back({.name = "gloo",
                 .command = {folder + "/gloo_peer"},
                 .ranks_option = "--ranks",
                 .ranks_at = 1,
                 .only = {}});
  for (const MpiSetting& setting : mpi_settings()) all.push_back(mpi_contender(setting, folder));
  return all;
}

std::vector<CommBenchRow> run_contender(const Contender& contender, const Workload& workload,
                                        int ranks) {
  std::vector<std::string> operations = workload.operations;
  std::erase_if(operations, [&](const std::string& operation) {
    return !contender.only.empty() && std::find(contender.only.begin(), contender.only.end(),
                                                operation) == contender.only.end();
  });
  if (operations.empty()) return {};
  std::vector<std::string> command = contender.command;
  const auto at = command.begin() + static_cast<std::ptrdiff_t>(contender.ranks_at);
  command.insert(at, {contender.ranks_option, std::to_string(ranks)});
  for (const auto& [option, value] : std::vector<std::pair<std::string, std::string>>{
           {"--op", fmt::format("{}", fmt::join(operations, ","))},
           {"--bytes", fmt::format("{}", fmt::join(workload.bytes, ","))},
           {"--repetitions", std::to_string(workload.repetitions)},
           {"--seconds", fmt::format("{}", workload.seconds)}}) {
    command.push_back(option);
    command.push_back(value);
  }
  std::string output;
  try {
    // Gloo's own algorithms have stood still with 4 ranks.
    output = output_of({.words = command});
  } catch (const Error& error) {
    if (contender.ours) throw;
    log_warn("{} with {} ranks is left out of this round: {}", contender.name, ranks, error.what());
    return {};
  }
  std::vector<CommBenchRow> rows;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("{")) rows.push_back(parse_row(line));
  }
  return rows;
}

}  // namespace trireme::peers
