// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "bench/peers/step_contenders.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/bench/statistics.h"
#include "trireme/topology/host.h"

namespace trireme::peers {
namespace {

constexpr int kLimitSeconds = 600;

using Environment = std::vector<std::pair<std::string, std::string>>;

// glibc keeps freed memory, as keep_memory_pages() makes it in trireme: nothing has a mapping of
// its own, and the heap is not trimmed below 16 GiB.
const Environment kKeepPages = {
    {"GLIBC_TUNABLES", "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"}};

// OpenBLAS and LibTorch of 2022 take newer processors for much older ones.
Environment vector_units() {
  const std::vector<std::string> features = this_host().cpu.features;
  const auto has = [&](const char* feature) {
    return std::find(features.begin(), features.end(), feature) != features.end();
  };
  if (has("avx512f")) return {{"OPENBLAS_CORETYPE", "SkylakeX"}, {"ATEN_CPU_CAPABILITY", "avx512"}};
  if (has("avx2")) return {{"OPENBLAS_CORETYPE", "Haswell"}, {"ATEN_CPU_CAPABILITY", "avx2"}};
  return {};
}

std::vector<std::string> options_of(const StepWorkload& workload) {
  return {"--model",   workload.model,
          "--dtype",   workload.dtype,
          "--batch",   std::to_string(workload.batch),
          "--seq",     std::to_string(workload.tokens),
          "--threads", std::to_string(workload.threads),
          "--steps",   std::to_string(workload.steps),
          "--warm-up", std::to_string(workload.warm_up)};
}

// Of trireme the one line, of a peer a line for each step between what ran and what it took.
StepResult parse(const std::string& output) {
  StepResult result;
  std::vector<double> ms;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json json = nlohmann::json::parse(line);
    if (json.contains("torch")) result.description = line;
    if (json.contains("step_ms")) ms.push_back(json["step_ms"]);
    if (json.contains("ms") && !json["warm_up"].get<bool>()) ms.push_back(json["ms"]);
    if (json.contains("peak_bytes")) result.peak_bytes = json["peak_bytes"];
  }
  if (ms.empty()) throw_error<Error>("no step's time in: {}", output);
  result.median_ms = spread_of(ms).median;
  return result;
}

}  // namespace

std::vector<StepContender> step_contenders(const std::string& program, const std::string& python,
                                           const std::string& script, int threads) {
  const std::string count = std::to_string(threads);
  const Environment pools = {{"OMP_NUM_THREADS", count}, {"OPENBLAS_NUM_THREADS", count}};
  std::vector<StepContender> all = {
      {.name = "trireme",
       .ours = true,
       .command = {.words = {program, "bench", "step", "--json", "--no-limit"},
                   .limit_seconds = kLimitSeconds}}};
  const auto add = [&](const std::string& name, const std::vector<Environment>& settings) {
    StepContender contender{
        .name = name,
        .command = {
            .words = {python, script}, .environment = pools, .limit_seconds = kLimitSeconds}};
    for (const Environment& setting : settings) {
      contender.command.environment.insert(contender.command.environment.end(), setting.begin(),
                                           setting.end());
    }
    all.push_back(contender);
  };
  add("torch", {});
  add("torch, keeps pages", {kKeepPages});
  add("torch, tuned", {kKeepPages, vector_units()});
  return all;
}

std::optional<StepResult> run_step_contender(const StepContender& contender,
                                             const StepWorkload& workload) {
  Command command = contender.command;
  const std::vector<std::string> options = options_of(workload);
  command.words.insert(command.words.end(), options.begin(), options.end());
  try {
    return parse(output_of(command));
  } catch (const Error& error) {
    if (contender.ours) throw;
    log_warn("{} in {} is left out of this round: {}", contender.name, workload.dtype,
             error.what());
    return std::nullopt;
  }
}

}  // namespace trireme::peers
