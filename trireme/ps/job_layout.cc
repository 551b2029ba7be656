// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/job_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <initializer_list>
#include <optional>
#include <string>

#include "trireme/base/error.h"
#include "trireme/comm/meeting/frame.h"

namespace trireme::ps {
namespace {

using optim::OptimizerConfig;
using optim::OptimizerParameter;

constexpr std::array kWholeParameterMethods = {"lamb", "adafactor", "muon"};

bool wants_whole_parameters(const OptimizerConfig& config) {
  return std::find(kWholeParameterMethods.begin(), kWholeParameterMethods.end(), config.name) !=
         kWholeParameterMethods.end();
}

void write(FieldWriter& out, double value) { out.u64(std::bit_cast<std::uint64_t>(value)); }
double read_double(FieldReader& in) { return std::bit_cast<double>(in.u64()); }

void write(FieldWriter& out, const std::optional<double>& value) {
  out.u8(value ? 1 : 0);
  if (value) write(out, *value);
}
std::optional<double> read_optional(FieldReader& in) {
  if (in.u8() == 0) return std::nullopt;
  return read_double(in);
}

void write(FieldWriter& out, const OptimizerConfig& config) {
  out.text(config.name);
  for (const auto* option :
       {&config.beta1, &config.beta2, &config.momentum, &config.epsilon, &config.weight_decay}) {
    write(out, *option);
  }
  out.text(config.state).u8(config.stochastic_rounding ? 1 : 0);
}
OptimizerConfig read_optimizer(FieldReader& in) {
  OptimizerConfig config;
  config.name = in.text();
  for (auto* option :
       {&config.beta1, &config.beta2, &config.momentum, &config.epsilon, &config.weight_decay}) {
    *option = read_optional(in);
  }
  config.state = in.text();
  config.stochastic_rounding = in.u8() != 0;
  return config;
}

// In the byte of hidden_matrix.
constexpr std::uint8_t kStackFlag = 2, kPartFlag = 4;

void write(FieldWriter& out, const OptimizerParameter& parameter) {
  out.text(parameter.entry.name).u32(static_cast<std::uint32_t>(parameter.entry.shape.size()));
  for (const std::int64_t dim : parameter.entry.shape) out.u64(static_cast<std::uint64_t>(dim));
  out.u64(static_cast<std::uint64_t>(parameter.entry.offset));
  out.u64(static_cast<std::uint64_t>(parameter.entry.count));
  out.u8(parameter.decays ? 1 : 0);
  out.u8((parameter.hidden_matrix ? 1 : 0) | (parameter.stack ? kStackFlag : 0) |
         (parameter.is_part ? kPartFlag : 0));
}
OptimizerParameter read_parameter(FieldReader& in) {
  OptimizerParameter parameter;
  parameter.entry.name = in.text();
  const std::uint32_t dims = in.u32();
  for (std::uint32_t i = 0; i < dims; ++i) {
    parameter.entry.shape.push_back(static_cast<std::int64_t>(in.u64()));
  }
  parameter.entry.offset = static_cast<std::int64_t>(in.u64());
  parameter.entry.count = static_cast<std::int64_t>(in.u64());
  parameter.decays = in.u8() != 0;
  const std::uint8_t flags = in.u8();
  parameter.hidden_matrix = (flags & 1) != 0;
  parameter.stack = (flags & kStackFlag) != 0;
  parameter.is_part = (flags & kPartFlag) != 0;
  return parameter;
}

void write(FieldWriter& out, const SparseTableConfig& table) {
  out.text(table.name).u64(static_cast<std::uint64_t>(table.width)).text(table.init);
  write(out, table.init_scale);
  write(out, table.optimizer);
}
SparseTableConfig read_table(FieldReader& in) {
  SparseTableConfig table;
  table.name = in.text();
  table.width = static_cast<std::int64_t>(in.u64());
  table.init = in.text();
  table.init_scale = read_double(in);
  table.optimizer = read_optimizer(in);
  return table;
}

// Differences: the first one, or nothing.

template <class T>
std::string two(const char* what, const T& ours, const T& theirs) {
  return ours == theirs ? "" : fmt::format("{} {} and {}", what, ours, theirs);
}

std::string two(const char* what, const std::optional<double>& ours,
                const std::optional<double>& theirs) {
  const auto text = [](const std::optional<double>& value) {
    return value ? fmt::format("{}", *value) : "the method's own";
  };
  return ours == theirs ? "" : fmt::format("{} {} and {}", what, text(ours), text(theirs));
}

std::string first_of(std::initializer_list<std::string> differences) {
  for (const std::string& difference : differences) {
    if (!difference.empty()) return difference;
  }
  return "";
}

std::string difference_of(const std::string& what, const OptimizerConfig& ours,
                          const OptimizerConfig& theirs) {
  if (ours.name != theirs.name) return two(what.c_str(), ours.name, theirs.name);
  const std::string option =
      first_of({two("beta1", ours.beta1, theirs.beta1), two("beta2", ours.beta2, theirs.beta2),
                two("momentum", ours.momentum, theirs.momentum),
                two("epsilon", ours.epsilon, theirs.epsilon),
                two("weight_decay", ours.weight_decay, theirs.weight_decay),
                two("state", ours.state, theirs.state),
                two("stochastic_rounding", ours.stochastic_rounding, theirs.stochastic_rounding)});
  return option.empty() ? "" : fmt::format("options of {} {}: {}", what, ours.name, option);
}

std::string difference_of(const OptimizerParameter& ours, const OptimizerParameter& theirs) {
  const FlatEntry &left = ours.entry, &right = theirs.entry;
  if (left.name != right.name || left.shape != right.shape || left.offset != right.offset ||
      left.count != right.count) {
    return fmt::format("dense parameter '{}' of {} elements at {} and '{}' of {} at {}", left.name,
                       left.count, left.offset, right.name, right.count, right.offset);
  }
  const std::string flag =
      first_of({two("decays:", ours.decays, theirs.decays),
                two("is a hidden matrix:", ours.hidden_matrix, theirs.hidden_matrix),
                two("is a stack:", ours.stack, theirs.stack),
                two("is a part:", ours.is_part, theirs.is_part)});
  return flag.empty() ? "" : fmt::format("whether dense parameter '{}' {}", left.name, flag);
}

std::string difference_of(const SparseTableConfig& ours, const SparseTableConfig& theirs) {
  if (ours.name != theirs.name || ours.width != theirs.width) {
    return fmt::format("sparse table '{}' of width {} and '{}' of width {}", ours.name, ours.width,
                       theirs.name, theirs.width);
  }
  if (ours.init != theirs.init || ours.init_scale != theirs.init_scale) {
    return fmt::format("first values of sparse table '{}': {} by {} and {} by {}", ours.name,
                       ours.init, ours.init_scale, theirs.init, theirs.init_scale);
  }
  return difference_of(fmt::format("optimizer of sparse table '{}'", ours.name), ours.optimizer,
                       theirs.optimizer);
}

template <class One>
std::string difference_of(const char* what, const std::vector<One>& ours,
                          const std::vector<One>& theirs) {
  if (ours.size() != theirs.size()) {
    return fmt::format("{} and {} {}", ours.size(), theirs.size(), what);
  }
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const std::string difference = difference_of(ours[i], theirs[i]);
    if (!difference.empty()) return difference;
  }
  return "";
}

}  // namespace

std::vector<FlatSegment> JobLayout::dense_ranges() const {
  const std::int64_t most =
      std::max<std::int64_t>(range_bytes / static_cast<std::int64_t>(sizeof(float)) / kShardBlock,
                             1) *
      kShardBlock;
  const bool whole = wants_whole_parameters(dense.optimizer);
  std::vector<FlatSegment> ranges;
  std::int64_t begin = 0;
  if (!whole) {
    for (; begin < dense.size; begin += most) {
      ranges.push_back({begin, std::min(begin + most, dense.size)});
    }
    return ranges;
  }
  // At the blocks where a parameter begins and the one before has ended.
  std::int64_t end_of_last = 0;
  for (const OptimizerParameter& parameter : dense.parameters) {
    const std::int64_t at = parameter.entry.offset / kShardBlock * kShardBlock;
    if (at > begin && at >= end_of_last &&
        parameter.entry.offset + parameter.entry.count - begin > most) {
      ranges.push_back({begin, at});
      begin = at;
    }
    end_of_last = parameter.entry.offset + parameter.entry.count;
  }
  if (begin < dense.size) ranges.push_back({begin, dense.size});
  return ranges;
}

optim::OptimizerSpace JobLayout::dense_space(std::size_t range) const {
  const FlatSegment segment = dense_ranges().at(range);
  std::vector<OptimizerParameter> inside;
  for (OptimizerParameter parameter : dense.parameters) {
    FlatEntry& entry = parameter.entry;
    const std::int64_t begin = std::max(entry.offset, segment.begin);
    const std::int64_t end = std::min(entry.offset + entry.count, segment.end);
    if (begin >= end) continue;
    const bool whole = end - begin == entry.count;
    entry.offset = begin;
    entry.count = end - begin;
    if (!whole) entry.shape = {entry.count};
    inside.push_back(std::move(parameter));
  }
  return {.parameters = std::move(inside), .segments = {segment}};
}

std::vector<std::int64_t> JobLayout::range_bytes_by_number() const {
  std::vector<std::int64_t> bytes;
  for (const FlatSegment& range : dense_ranges()) {
    bytes.push_back((range.end - range.begin) * static_cast<std::int64_t>(sizeof(float)));
  }
  // What tables will hold is not known: all slices weigh the same, and as much as a dense range.
  bytes.resize(bytes.size() + num_slices(), range_bytes);
  return bytes;
}

void JobLayout::validate() const {
  if (range_bytes < 4 * kShardBlock) {
    throw_error<ConfigError>("ranges of {} bytes: at least {}, a block of {} elements", range_bytes,
                             4 * kShardBlock, kShardBlock);
  }
  if (dense.size < 0 || dense.size % kShardBlock != 0) {
    throw_error<ConfigError>("{} dense elements: wanted is a multiple of {}", dense.size,
                             kShardBlock);
  }
  std::int64_t end = 0;
  for (const OptimizerParameter& parameter : dense.parameters) {
    if (parameter.entry.offset < end || parameter.entry.count < 0) {
      throw_error<ConfigError>("dense parameter '{}' begins at {}, before {} where the last ends",
                               parameter.entry.name, parameter.entry.offset, end);
    }
    end = parameter.entry.offset + parameter.entry.count;
  }
  if (end > dense.size) {
    throw_error<ConfigError>("dense parameters end at {}, the buffer at {}", end, dense.size);
  }
  dense.optimizer.validate();
  if (two_phases && !consistency.sums) {
    throw_error<ConfigError>(
        "gradients can be asked for before they are applied with consistency sync only, not {}",
        consistency.text());
  }
  if (!sparse.tables.empty() && sparse.slices < 1) {
    throw_error<ConfigError>("sparse tables in {} slices: at least 1", sparse.slices);
  }
  for (const SparseTableConfig& table : sparse.tables) table.validate();
  if (num_ranges() == 0) throw_error<ConfigError>("a job without dense parameters and tables");
}

std::string JobLayout::encode() const {
  FieldWriter out;
  out.u8(consistency.sums ? 1 : 0).u64(static_cast<std::uint64_t>(consistency.bound));
  out.u8(two_phases ? 1 : 0).u8(backups ? 1 : 0).u64(static_cast<std::uint64_t>(range_bytes));
  out.u64(static_cast<std::uint64_t>(dense.size));
  write(out, dense.optimizer);
  out.u32(static_cast<std::uint32_t>(dense.parameters.size()));
  for (const OptimizerParameter& parameter : dense.parameters) write(out, parameter);
  out.u32(static_cast<std::uint32_t>(sparse.tables.size()));
  for (const SparseTableConfig& table : sparse.tables) write(out, table);
  out.u32(static_cast<std::uint32_t>(sparse.slices)).u64(sparse.seed);
  out.u64(static_cast<std::uint64_t>(first_step)).text(settings);
  return out.bytes();
}

JobLayout JobLayout::decode(std::string_view bytes) {
  FieldReader in(bytes);
  JobLayout layout;
  layout.consistency.sums = in.u8() != 0;
  layout.consistency.bound = static_cast<std::int64_t>(in.u64());
  layout.two_phases = in.u8() != 0;
  layout.backups = in.u8() != 0;
  layout.range_bytes = static_cast<std::int64_t>(in.u64());
  layout.dense.size = static_cast<std::int64_t>(in.u64());
  layout.dense.optimizer = read_optimizer(in);
  for (std::uint32_t left = in.u32(); left > 0; --left) {
    layout.dense.parameters.push_back(read_parameter(in));
  }
  for (std::uint32_t left = in.u32(); left > 0; --left) {
    layout.sparse.tables.push_back(read_table(in));
  }
  layout.sparse.slices = static_cast<int>(in.u32());
  layout.sparse.seed = in.u64();
  layout.first_step = static_cast<std::int64_t>(in.u64());
  layout.settings = in.text();
  in.finish();
  return layout;
}

std::string layout_difference(const JobLayout& ours, const JobLayout& theirs) {
  if (ours.consistency != theirs.consistency) {
    return fmt::format("consistency {} and {}", ours.consistency.text(), theirs.consistency.text());
  }
  if (ours.dense.size != theirs.dense.size) {
    return fmt::format("{} and {} dense elements", ours.dense.size, theirs.dense.size);
  }
  if (ours.range_bytes != theirs.range_bytes) {
    return fmt::format("ranges of {} and {} bytes", ours.range_bytes, theirs.range_bytes);
  }
  if (ours.two_phases != theirs.two_phases) {
    const auto phases = [](bool two_phases) { return two_phases ? "two phases" : "one phase"; };
    return fmt::format("updates in {} and in {}", phases(ours.two_phases),
                       phases(theirs.two_phases));
  }
  if (ours.sparse.slices != theirs.sparse.slices) {
    return fmt::format("tables in {} and {} slices", ours.sparse.slices, theirs.sparse.slices);
  }
  if (ours.settings != theirs.settings) {
    return fmt::format("settings '{}' and '{}'", ours.settings, theirs.settings);
  }
  return first_of(
      {difference_of("optimizer", ours.dense.optimizer, theirs.dense.optimizer),
       difference_of("dense parameters", ours.dense.parameters, theirs.dense.parameters),
       difference_of("sparse tables", ours.sparse.tables, theirs.sparse.tables),
       two("seed of tables", ours.sparse.seed, theirs.sparse.seed),
       two("backups", ours.backups, theirs.backups),
       two("first step", ours.first_step, theirs.first_step)});
}

}  // namespace trireme::ps
