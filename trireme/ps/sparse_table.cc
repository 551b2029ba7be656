// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/sparse_table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/config.h"
#include "trireme/base/error.h"
#include "trireme/ops/kernels/tasks.h"
#include "trireme/optim/row_rule.h"
#include "trireme/ps/row_index.h"
#include "trireme/ps/row_memory.h"
#include "trireme/ps/row_values.h"

namespace trireme::ps {
namespace {

// Ids of a group, whose slots or rows are on their way from memory together: a core keeps some tens
// of lines under way, of which a row of 64 has four.
constexpr std::size_t kGroup = 16;
constexpr std::size_t kLine = 64;           // bytes of a cache line
constexpr std::size_t kMostFetched = 1024;  // bytes of a row; what follows the hardware fetches
constexpr std::uint32_t kMostSteps = std::numeric_limits<std::uint32_t>::max();

RowInit init_of(const std::string& name) {
  return name == "uniform"  ? RowInit::kUniform
         : name == "normal" ? RowInit::kNormal
                            : RowInit::kZeros;
}

template <int for_writing>
void fetch(const float* row, std::size_t bytes) {
  const auto* const begin = reinterpret_cast<const char*>(row);
  for (std::size_t at = 0; at < std::min(bytes, kMostFetched); at += kLine) {
    __builtin_prefetch(begin + at, for_writing);
  }
}

// What a block's spans lie in.
struct RowCopies {
  std::vector<std::uint64_t> ids;
  std::vector<std::int64_t> steps;
  std::vector<float> weights;
  std::vector<float> state;
};

// Where the caller's row i lies.
struct Places {
  std::int64_t width;
  std::span<const std::uint32_t> positions;

  Places(const char* what, std::size_t ids, std::int64_t row_width,
         std::span<const std::uint32_t> given)
      : width(row_width), positions(given) {
    if (positions.empty() || positions.size() == ids) return;
    throw_error<ShapeError>("{} of {} rows with {} positions: one for each, or none", what, ids,
                            positions.size());
  }
  std::int64_t operator[](std::size_t i) const {
    return width * (positions.empty() ? static_cast<std::int64_t>(i) : std::int64_t{positions[i]});
  }
};

// Calls first(begin, count) for groups of [0, size), and second(), third() one and two groups
// later: what one begins to bring from memory is there when the next wants it.
template <class First, class Second, class Third>
void in_groups(std::size_t size, First first, Second second, Third third) {
  const std::size_t groups = (size + kGroup - 1) / kGroup;
  const auto run = [&](auto& stage, std::size_t group) {
    if (group < groups) stage(group * kGroup, std::min(kGroup, size - group * kGroup));
  };
  for (std::size_t i = 0; i < groups + 2; ++i) {
    run(first, i);
    if (i >= 1) run(second, i - 1);
    if (i >= 2) run(third, i - 2);
  }
}

}  // namespace

void SparseTableConfig::visit(ConfigFields& f) {
  f.field("name", name, "unlike that of any other table");
  f.field("width", width, "values of a row");
  f.field("init", init, "what a row begins with", {"uniform", "normal", "zeros"});
  f.field("init_scale", init_scale, "uniform: the largest value; normal: the standard deviation");
  f.section("optimizer", optimizer, "of the rows");
}

void SparseTableConfig::validate() const {
  if (name.empty()) throw_error<ConfigError>("a sparse table has no name");
  if (width < 1 || width > SparseTable::kMaxWidth) {
    throw_error<ConfigError>("sparse table '{}': width is {}; it must lie in [1, {}]", name, width,
                             SparseTable::kMaxWidth);
  }
  if (init != "uniform" && init != "normal" && init != "zeros") {
    throw_error<ConfigError>("sparse table '{}': init is '{}'; known: uniform, normal, zeros", name,
                             init);
  }
  if (!std::isfinite(init_scale) || init_scale < 0) {
    throw_error<ConfigError>("sparse table '{}': init_scale is {}; it must be at least 0", name,
                             init_scale);
  }
  try {
    optim::RowRule rule(optimizer);
  } catch (const ConfigError& error) {
    throw_error<ConfigError>("sparse table '{}': {}", name, error.what());
  }
}

struct SparseTable::Impl {
  Impl(const SparseTableConfig& given, std::uint64_t seed)
      : config(given),
        width(given.width),
        values(init_of(given.init), given.init_scale, seed, given.name),
        rule(given.optimizer),
        state_width(static_cast<std::int64_t>(rule.moments().size()) * width),
        memory(width + state_width),
        weight_bytes(static_cast<std::size_t>(width) * sizeof(float)),
        state_bytes(static_cast<std::size_t>(state_width) * sizeof(float)) {}

  // The row of an id, counted as updated once more; made if need be.
  optim::RowStep next_step(std::uint64_t id, std::uint64_t hash);
  std::pair<RowSlot*, float*> add(std::uint64_t id, std::uint64_t hash);
  void check(const Block& block) const;
  void copy_rows(std::int64_t begin, std::int64_t count, RowCopies& copies) const;

  SparseTableConfig config;
  std::int64_t width;
  RowValues values;
  optim::RowRule rule;
  std::int64_t state_width;
  RowMemory memory;
  RowIndex index;
  std::size_t weight_bytes;
  std::size_t state_bytes;
};

SparseTable::SparseTable(const SparseTableConfig& config, std::uint64_t seed) {
  config.validate();
  impl_ = std::make_unique<Impl>(config, seed);
}
SparseTable::~SparseTable() = default;
SparseTable::SparseTable(SparseTable&&) noexcept = default;
SparseTable& SparseTable::operator=(SparseTable&&) noexcept = default;

const SparseTableConfig& SparseTable::config() const { return impl_->config; }
std::int64_t SparseTable::rows() const { return impl_->memory.rows(); }
std::int64_t SparseTable::state_width() const { return impl_->state_width; }
std::vector<std::string> SparseTable::state_names() const { return impl_->rule.moments(); }
std::int64_t SparseTable::memory_bytes() const {
  return impl_->memory.used_bytes() + impl_->index.bytes();
}

// The number is given last: a row that found no memory leaves a free slot.
std::pair<RowSlot*, float*> SparseTable::Impl::add(std::uint64_t id, std::uint64_t hash) {
  RowSlot* const slot = index.add(id, hash);
  const std::uint32_t row = memory.add(id);
  slot->number = row + 1;
  return {slot, memory.row(row)};
}

optim::RowStep SparseTable::Impl::next_step(std::uint64_t id, std::uint64_t hash) {
  RowSlot* slot = index.find(id, hash);
  float* row = nullptr;
  if (slot != nullptr) {
    row = memory.row(slot->number - 1);
    fetch</*for_writing=*/1>(row, memory.stride_bytes());
  } else {
    std::tie(slot, row) = add(id, hash);
    values.fill(id, width, row);
  }
  if (slot->steps < kMostSteps) ++slot->steps;
  return {.weights = row, .gradients = nullptr, .steps = slot->steps};
}

void SparseTable::update(std::span<const std::uint64_t> ids, const float* gradients,
                         double learning_rate, double gradient_scale,
                         std::span<const std::uint32_t> positions) {
  const Places places("an update", ids.size(), impl_->width, positions);
  const ops::FlushDenormals flush;
  std::array<std::uint64_t, 2 * kGroup> hashes;
  std::array<optim::RowStep, 2 * kGroup> steps;
  const auto hash_all = [&](std::size_t begin, std::size_t count) {
    for (std::size_t i = begin; i < begin + count; ++i) {
      const std::uint64_t hash = hashes[i % hashes.size()] = index_hash(ids[i]);
      impl_->index.prefetch(hash);
    }
  };
  const auto find_all = [&](std::size_t begin, std::size_t count) {
    for (std::size_t i = begin; i < begin + count; ++i) {
      optim::RowStep& step = steps[i % steps.size()];
      step = impl_->next_step(ids[i], hashes[i % hashes.size()]);
      step.gradients = gradients + places[i];
      fetch</*for_writing=*/0>(step.gradients, impl_->weight_bytes);
    }
  };
  const auto update_all = [&](std::size_t begin, std::size_t count) {
    impl_->rule.update({&steps[begin % steps.size()], count}, impl_->width, learning_rate,
                       gradient_scale);
  };
  in_groups(ids.size(), hash_all, find_all, update_all);
}

void SparseTable::read(std::span<const std::uint64_t> ids, float* out,
                       std::span<const std::uint32_t> positions) const {
  const Places places("a read", ids.size(), impl_->width, positions);
  const ops::FlushDenormals flush;
  std::array<std::uint64_t, 2 * kGroup> hashes;
  std::array<const float*, 2 * kGroup> rows;
  const auto hash_all = [&](std::size_t begin, std::size_t count) {
    for (std::size_t i = begin; i < begin + count; ++i) {
      const std::uint64_t hash = hashes[i % hashes.size()] = index_hash(ids[i]);
      impl_->index.prefetch(hash);
    }
  };
  const auto find_all = [&](std::size_t begin, std::size_t count) {
    for (std::size_t i = begin; i < begin + count; ++i) {
      const RowSlot* const slot = impl_->index.find(ids[i], hashes[i % hashes.size()]);
      const float*& row = rows[i % rows.size()];
      row = slot == nullptr ? nullptr : impl_->memory.row(slot->number - 1);
      if (row != nullptr) fetch</*for_writing=*/0>(row, impl_->weight_bytes);
    }
  };
  const auto copy_all = [&](std::size_t begin, std::size_t count) {
    for (std::size_t i = begin; i < begin + count; ++i) {
      const float* const row = rows[i % rows.size()];
      float* const to = out + places[i];
      if (row != nullptr) {
        std::memcpy(to, row, impl_->weight_bytes);
      } else {
        impl_->values.fill(ids[i], impl_->width, to);
      }
    }
  };
  in_groups(ids.size(), hash_all, find_all, copy_all);
}

void SparseTable::for_each_block(std::int64_t most_rows,
                                 const std::function<void(const Block&)>& f) const {
  TRIREME_CHECK_LE(1, most_rows, "rows of a block of table '{}'", impl_->config.name);
  RowCopies copies;
  for (std::int64_t begin = 0; begin < rows(); begin += most_rows) {
    impl_->copy_rows(begin, std::min(most_rows, rows() - begin), copies);
    f({.ids = copies.ids, .weights = copies.weights, .state = copies.state, .steps = copies.steps});
  }
}

void SparseTable::Impl::copy_rows(std::int64_t begin, std::int64_t count, RowCopies& copies) const {
  const auto size = static_cast<std::size_t>(count);
  copies.ids.resize(size);
  copies.steps.resize(size);
  copies.weights.resize(size * static_cast<std::size_t>(width));
  copies.state.resize(size * static_cast<std::size_t>(state_width));
  const auto row_of = [&](std::size_t i) {
    return static_cast<std::uint32_t>(begin + static_cast<std::int64_t>(i));
  };
  const auto fetch_all = [&](std::size_t from, std::size_t number) {
    for (std::size_t i = from; i < from + number; ++i) {
      copies.ids[i] = memory.id(row_of(i));
      index.prefetch(index_hash(copies.ids[i]));
    }
  };
  const auto nothing = [](std::size_t, std::size_t) {};
  const auto copy_all = [&](std::size_t from, std::size_t number) {
    for (std::size_t i = from; i < from + number; ++i) {
      copies.steps[i] = index.find(copies.ids[i], index_hash(copies.ids[i]))->steps;
      const float* const row = memory.row(row_of(i));
      std::copy_n(row, width, copies.weights.data() + static_cast<std::int64_t>(i) * width);
      std::copy_n(row + width, state_width,
                  copies.state.data() + static_cast<std::int64_t>(i) * state_width);
    }
  };
  in_groups(size, fetch_all, nothing, copy_all);
}

void SparseTable::Impl::check(const Block& block) const {
  const std::size_t size = block.ids.size();
  if (block.steps.size() != size ||
      block.weights.size() != size * static_cast<std::size_t>(width) ||
      block.state.size() != size * static_cast<std::size_t>(state_width)) {
    throw_error<ShapeError>(
        "table '{}' of width {} with {} values of state a row was given {} ids with {} steps, {} "
        "weights and {} values of state",
        config.name, width, state_width, size, block.steps.size(), block.weights.size(),
        block.state.size());
  }
  for (std::size_t i = 0; i < size; ++i) {
    if (block.steps[i] < 0 || block.steps[i] > std::int64_t{kMostSteps}) {
      throw_error<ShapeError>("table '{}' was given row {} after {} steps; they lie in [0, {}]",
                              config.name, block.ids[i], block.steps[i], kMostSteps);
    }
  }
}

void SparseTable::import(const Block& block) {
  impl_->check(block);
  const auto fetch_all = [&](std::size_t begin, std::size_t count) {
    for (std::size_t i = begin; i < begin + count; ++i) {
      impl_->index.prefetch(index_hash(block.ids[i]));
    }
  };
  const auto nothing = [](std::size_t, std::size_t) {};
  const auto take_all = [&](std::size_t begin, std::size_t count) {
    for (std::size_t i = begin; i < begin + count; ++i) {
      const std::uint64_t id = block.ids[i], hash = index_hash(id);
      RowSlot* slot = impl_->index.find(id, hash);
      float* row = nullptr;
      if (slot != nullptr) {
        row = impl_->memory.row(slot->number - 1);
      } else {
        std::tie(slot, row) = impl_->add(id, hash);
      }
      slot->steps = static_cast<std::uint32_t>(block.steps[i]);
      std::memcpy(row, block.weights.data() + i * static_cast<std::size_t>(impl_->width),
                  impl_->weight_bytes);
      if (impl_->state_bytes == 0) continue;
      std::memcpy(row + impl_->width,
                  block.state.data() + i * static_cast<std::size_t>(impl_->state_width),
                  impl_->state_bytes);
    }
  };
  in_groups(block.ids.size(), fetch_all, nothing, take_all);
}

void SparseTable::clear() {
  impl_->memory = RowMemory(impl_->width + impl_->state_width);
  impl_->index = RowIndex();
}

}  // namespace trireme::ps
