// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/sparse_table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/comm/shm/shm_copy.h"
#include "trireme/ops/kernels/tasks.h"
#include "trireme/optim/row_update.h"
#include "trireme/ps/prefetch.h"
#include "trireme/ps/row_index.h"
#include "trireme/ps/row_init.h"
#include "trireme/ps/row_store.h"

namespace trireme::ps {
namespace {

using Ids = std::span<const std::uint64_t>;
using Positions = std::span<const std::uint32_t>;

// Ids of a batch: by its end memory has answered what was asked for at its beginning, and what came
// is still in the first-level cache.
constexpr std::size_t kBatch = 32;

// Requests for one row; the processor fetches the rest of a longer one by itself.
constexpr std::int64_t kMostPrefetched = 16 * 16;  // f32, that is 16 lines
constexpr std::int64_t kLine = 16;

constexpr std::uint32_t kMaxSteps = std::numeric_limits<std::uint32_t>::max();

void prefetch(const float* values, std::int64_t count) {
  const std::int64_t most = std::min(count, kMostPrefetched);
  for (std::int64_t at = 0; at < most; at += kLine) prefetch_line(values + at);
}

// Gradients or results of a call: [ids, width], in the ids' order or by their positions.
template <class Float>
struct Matrix {
  Float* values;
  std::int64_t width;
  Positions positions;

  Float* row(std::size_t i) const {
    return values + static_cast<std::int64_t>(positions.empty() ? i : positions[i]) * width;
  }
  // In order, the processor sees for itself what comes next.
  void prefetch_row(std::size_t i) const {
    if (!positions.empty()) prefetch(row(i), width);
  }
};

void check_positions(const std::string& table, Ids ids, Positions positions) {
  if (positions.empty() || positions.size() == ids.size()) return;
  throw_error<ShapeError>("sparse table '{}': {} ids with {} positions; give as many, or none",
                          table, ids.size(), positions.size());
}

// What is done with each id: find(i) looks into the index, fetch(i, found) asks for the row's
// memory, work(i, found) has it, and comes when the next batch has been found and fetched.
// make_room(count) comes before count finds.
template <class MakeRoom, class Find, class Fetch, class Work>
struct Stages {
  MakeRoom make_room;
  Find find;
  Fetch fetch;
  Work work;
};

// Where no row is made; where the row is not looked at.
constexpr auto kNoRoom = [](std::uint32_t) {};
constexpr auto kNoFetch = [](std::size_t, const RowIndex::Slot*) {};

// Batch by batch, each stage in a loop of its own: a short one, of which the processor sees many
// rounds ahead. In one loop with the work it would wait for each address's translation.
template <class MakeRoom, class Find, class Fetch, class Work>
void run(const Stages<MakeRoom, Find, Fetch, Work>& stages, const RowIndex& index, Ids ids) {
  using Found = decltype(stages.find(std::size_t{}));
  std::array<Found, kBatch> found[2];
  const std::size_t count = ids.size();
  const auto ask = [&](std::size_t begin) {
    const std::size_t end = std::min(begin + kBatch, count);
    for (std::size_t i = begin; i < end; ++i) index.prefetch(ids[i]);
  };
  const auto work = [&](std::size_t begin) {
    const std::size_t end = std::min(begin + kBatch, count);
    const Found* const batch = found[begin / kBatch % 2].data();
    for (std::size_t i = begin; i < end; ++i) stages.work(i, batch[i - begin]);
  };
  ask(0);
  for (std::size_t begin = 0; begin < count; begin += kBatch) {
    const std::size_t end = std::min(begin + kBatch, count);
    Found* const batch = found[begin / kBatch % 2].data();
    stages.make_room(static_cast<std::uint32_t>(end - begin));
    for (std::size_t i = begin; i < end; ++i) batch[i - begin] = stages.find(i);
    for (std::size_t i = begin; i < end; ++i) stages.fetch(i, batch[i - begin]);
    ask(end);
    if (begin > 0) work(begin - kBatch);
  }
  if (count > 0) work((count - 1) / kBatch * kBatch);
}

}  // namespace

void SparseTableConfig::visit(ConfigFields& f) {
  f.field("name", name, "the table's name: what its rows begin with depends on it");
  f.field("width", width, "numbers in a row");
  f.field("init", init, "what a row begins with", {"uniform", "normal", "zeros"});
  f.field("init_scale", init_scale,
          "uniform: rows begin between -init_scale and init_scale; normal: with this standard "
          "deviation");
  f.section("optimizer", optimizer, "how a row is updated: sgd, adagrad, adam, adamw or lion");
}

void SparseTableConfig::validate() const {
  if (name.empty()) {
    throw_error<ConfigError>("a sparse table of width {} has no name: give it one", width);
  }
  if (width < 1 || width > SparseTable::kMaxWidth) {
    throw_error<ConfigError>("sparse table '{}': width is {}; it must lie in [1, {}]", name, width,
                             SparseTable::kMaxWidth);
  }
  if (init != "uniform" && init != "normal" && init != "zeros") {
    throw_error<ConfigError>("sparse table '{}': init is '{}'; known: uniform, normal, zeros", name,
                             init);
  }
  if (!std::isfinite(static_cast<float>(init_scale)) || init_scale < 0) {
    throw_error<ConfigError>(
        "sparse table '{}': init_scale is {}; it must be finite and at least 0", name, init_scale);
  }
  try {
    const optim::RowUpdate possible(optimizer);
  } catch (const ConfigError& error) {
    throw_error<ConfigError>("sparse table '{}': {}", name, error.what());
  }
}

struct SparseTable::Impl {
  explicit Impl(const SparseTableConfig& c, std::uint64_t seed)
      : config(c),
        width(c.width),
        init(c.init, c.init_scale, seed, c.name),
        method(c.optimizer),
        state_width(method.moments() * c.width),
        content(width + state_width),
        store(content) {}

  // A row that is not there, its record zeros.
  RowIndex::Slot* add(std::uint64_t id) {
    if (std::int64_t{store.rows()} >= kMaxRows) {
      throw_error<Error>("sparse table '{}': a slice holds {} rows at most: take more servers",
                         config.name, kMaxRows);
    }
    return index.insert(id, store.add(id));
  }

  SparseTableConfig config;
  std::int64_t width;
  RowInit init;
  optim::RowUpdate method;
  std::int64_t state_width;
  std::int64_t content;  // width + state_width
  RowIndex index;
  RowStore store;
};

SparseTable::SparseTable(const SparseTableConfig& config, std::uint64_t seed) {
  config.validate();
  impl_ = std::make_unique<Impl>(config, seed);
}

SparseTable::SparseTable(SparseTable&&) noexcept = default;
SparseTable& SparseTable::operator=(SparseTable&&) noexcept = default;
SparseTable::~SparseTable() = default;

void SparseTable::update(Ids ids, const float* gradients, double learning_rate,
                         double gradient_scale, Positions positions) {
  Impl& table = *impl_;
  check_positions(table.config.name, ids, positions);
  const ops::FlushDenormals flush;
  const Matrix<const float> gradient{gradients, table.width, positions};
  table.method.begin({.learning_rate = learning_rate, .gradient_scale = gradient_scale});
  struct Found {
    float* record;
    std::uint32_t steps;  // this one included
    bool made;
  };
  const auto find = [&](std::size_t i) -> Found {
    RowIndex::Slot* slot = table.index.find(ids[i]);
    const bool made = slot == nullptr;
    if (made) slot = table.add(ids[i]);
    if (slot->steps < kMaxSteps) ++slot->steps;
    return {table.store.record(slot->row()), slot->steps, made};
  };
  const auto fetch = [&](std::size_t i, const Found& found) {
    prefetch(found.record, table.content);
    gradient.prefetch_row(i);
  };
  const auto work = [&](std::size_t i, const Found& found) {
    if (found.made) table.init.fill(ids[i], table.width, found.record);
    table.method.apply(table.width, found.record, gradient.row(i), found.record + table.width,
                       found.steps);
  };
  const auto make_room = [&](std::uint32_t some) { table.index.make_room(some); };
  run(Stages{make_room, find, fetch, work}, table.index, ids);
}

void SparseTable::read(Ids ids, float* out, Positions positions) const {
  const Impl& table = *impl_;
  check_positions(table.config.name, ids, positions);
  const ops::FlushDenormals flush;
  const Matrix<float> result{out, table.width, positions};
  const auto find = [&](std::size_t i) -> const float* {
    const RowIndex::Slot* const slot = table.index.find(ids[i]);
    if (slot == nullptr) return nullptr;
    return table.store.record(slot->row());
  };
  const auto fetch = [&](std::size_t, const float* record) {
    if (record != nullptr) prefetch(record, table.width);
  };
  // Scattered rows go past the caches: they are read when all are there, by another core.
  const bool streams = !positions.empty() && table.width % kLine == 0 &&
                       reinterpret_cast<std::uintptr_t>(out) % (kLine * sizeof(float)) == 0;
  const auto work = [&](std::size_t i, const float* record) {
    if (record == nullptr) return table.init.fill(ids[i], table.width, result.row(i));
    if (streams) {
      stream_lines(result.row(i), record, static_cast<std::size_t>(table.width) * sizeof(float));
    } else {
      std::copy_n(record, table.width, result.row(i));
    }
  };
  run(Stages{kNoRoom, find, fetch, work}, table.index, ids);
  if (streams) stream_fence();
}

std::int64_t SparseTable::rows() const { return impl_->store.rows(); }

std::int64_t SparseTable::memory_bytes() const {
  return impl_->store.memory_bytes() + impl_->index.memory_bytes();
}

std::int64_t SparseTable::state_width() const { return impl_->state_width; }

void SparseTable::for_each_block(std::int64_t most_rows,
                                 const std::function<void(const Block&)>& f) const {
  TRIREME_CHECK_LE(1, most_rows, "rows of a block");
  const Impl& table = *impl_;
  std::vector<std::uint64_t> ids;
  std::vector<float> weights, state;
  std::vector<std::int64_t> steps;
  for (std::int64_t begin = 0; begin < rows(); begin += most_rows) {
    const std::int64_t count = std::min(most_rows, rows() - begin);
    const auto size = static_cast<std::size_t>(count);
    ids.resize(size);
    steps.resize(size);
    weights.resize(size * static_cast<std::size_t>(table.width));
    state.resize(size * static_cast<std::size_t>(table.state_width));
    for (std::int64_t i = 0; i < count; ++i) {
      const auto row = static_cast<std::uint32_t>(begin + i);
      const float* const record = table.store.record(row);
      ids[static_cast<std::size_t>(i)] = table.store.id(row);
      std::copy_n(record, table.width, weights.data() + i * table.width);
      std::copy_n(record + table.width, table.state_width, state.data() + i * table.state_width);
    }
    const auto find = [&](std::size_t i) { return table.index.find(ids[i]); };
    const auto work = [&](std::size_t i, const RowIndex::Slot* slot) { steps[i] = slot->steps; };
    run(Stages{kNoRoom, find, kNoFetch, work}, table.index, ids);
    f({ids, weights, state, steps});
  }
}

void SparseTable::check(const Block& block) const {
  const Impl& table = *impl_;
  const std::size_t count = block.ids.size();
  if (block.weights.size() != count * static_cast<std::size_t>(table.width) ||
      block.state.size() != count * static_cast<std::size_t>(table.state_width) ||
      block.steps.size() != count) {
    throw_error<ShapeError>(
        "sparse table '{}': a block of {} ids comes with {} weights, {} of state and {} steps; a "
        "row has {}, {} and 1",
        table.config.name, count, block.weights.size(), block.state.size(), block.steps.size(),
        table.width, table.state_width);
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (block.steps[i] < 0 || block.steps[i] > std::int64_t{kMaxSteps}) {
      throw_error<ShapeError>("sparse table '{}': row {} took {} steps; they lie in [0, {}]",
                              table.config.name, block.ids[i], block.steps[i], kMaxSteps);
    }
  }
}

void SparseTable::import(const Block& block) {
  check(block);
  Impl& table = *impl_;
  const auto find = [&](std::size_t i) {
    RowIndex::Slot* slot = table.index.find(block.ids[i]);
    if (slot == nullptr) slot = table.add(block.ids[i]);
    slot->steps = static_cast<std::uint32_t>(block.steps[i]);
    return table.store.record(slot->row());
  };
  const auto work = [&](std::size_t i, float* record) {
    const auto row = static_cast<std::int64_t>(i);
    std::copy_n(block.weights.data() + row * table.width, table.width, record);
    std::copy_n(block.state.data() + row * table.state_width, table.state_width,
                record + table.width);
  };
  const auto fetch = [&](std::size_t, const float* record) { prefetch(record, table.content); };
  const auto make_room = [&](std::uint32_t some) { table.index.make_room(some); };
  run(Stages{make_room, find, fetch, work}, table.index, block.ids);
}

void SparseTable::clear() {
  impl_->index = RowIndex();
  impl_->store = RowStore(impl_->content);
}

}  // namespace trireme::ps
