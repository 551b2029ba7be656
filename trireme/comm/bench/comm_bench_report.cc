// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "trireme/base/error.h"
#include "trireme/comm/bench/build_info.h"
#include "trireme/comm/bench/comm_bench.h"
#include "trireme/comm/bench/sizes.h"
#include "trireme/topology/host.h"

namespace trireme {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16,
                             DType::kI8,  DType::kU8,  DType::kI32,  DType::kI64};
constexpr auto kRowFormat =
    "{:<14}  {:<8}  {:<6}  {:>5}  {:<5}  {:>9}  {:>11}  {:>11}  {:>11}  {:>8}  {:>8}";

// JSON has no NaN.
std::string json_number(double value) {
  return std::isfinite(value) ? fmt::format("{}", value) : "null";
}

// Four digits that matter, not in powers of ten.
std::string digits(double value) {
  const int decimals = value < 10 ? 3 : value < 100 ? 2 : value < 1000 ? 1 : 0;
  return fmt::format("{:.{}f}", value, decimals);
}

}  // namespace

std::string to_json(const CommBenchRow& row) {
  return fmt::format(
      R"({{"op": "{}", "engine": "{}", "memory": "{}", "ranks": {}, "dtype": "{}", "bytes": {}, )"
      R"("median_us": {}, "p10_us": {}, "p90_us": {}, "bus_gb_per_s": {}, "share_of_limit": {}}})",
      row.op, row.engine, row.memory, row.ranks, dtype_name(row.dtype), row.bytes,
      json_number(row.us.median), json_number(row.us.p10), json_number(row.us.p90),
      json_number(row.bus_gb_per_s), json_number(row.share_of_limit));
}

std::string table_header() {
  return fmt::format(fmt::runtime(kRowFormat), "op", "engine", "memory", "ranks", "dtype", "size",
                     "median us", "p10 us", "p90 us", "bus GB/s", "of limit");
}

std::string to_table(const CommBenchRow& row) {
  const std::string share =
      std::isfinite(row.share_of_limit) ? fmt::format("{:.1f} %", 100 * row.share_of_limit) : "-";
  const std::string bus = row.bytes > 0 ? digits(row.bus_gb_per_s) : "-";
  return fmt::format(fmt::runtime(kRowFormat), row.op, row.engine, row.memory, row.ranks,
                     dtype_name(row.dtype), row.bytes > 0 ? format_bytes(row.bytes) : "-",
                     digits(row.us.median), digits(row.us.p10), digits(row.us.p90), bus, share);
}

std::string bench_machine() {
  const CpuInfo cpu = this_host().cpu;
  return fmt::format("{}, {} cores, commit {}, {}", cpu.model.empty() ? "unknown CPU" : cpu.model,
                     cpu.usable_cores, build_commit(), build_type());
}

DType parse_dtype(std::string_view name) {
  std::vector<std::string_view> known;
  for (const DType dtype : kDTypes) {
    if (dtype_name(dtype) == name) return dtype;
    known.push_back(dtype_name(dtype));
  }
  throw_error<ConfigError>("there is no dtype '{}'; use {}", name, fmt::join(known, ", "));
}

}  // namespace trireme
