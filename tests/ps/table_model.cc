// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/ps/table_model.h"

#include <bit>

#include "tests/ps/chosen_ids.h"
#include "trireme/base/random.h"
#include "trireme/ops/kernels/tasks.h"

namespace trireme::testing {

bool Row::operator==(const Row& other) const {
  return steps == other.steps && bits_of(weights) == bits_of(other.weights) &&
         bits_of(state) == bits_of(other.state);
}

std::vector<std::uint32_t> bits_of(std::span<const float> values) {
  std::vector<std::uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

Rows rows_of(const ps::SparseTable& table) {
  Rows rows;
  table.for_each_block(97, [&](const ps::SparseTable::Block& block) {
    const std::size_t width = block.weights.size() / block.ids.size();
    const std::size_t state = block.state.size() / block.ids.size();
    for (std::size_t i = 0; i < block.ids.size(); ++i) {
      const auto weights = block.weights.subspan(i * width, width);
      const auto moments = block.state.subspan(i * state, state);
      const bool added = rows.try_emplace(block.ids[i], Row{{weights.begin(), weights.end()},
                                                            {moments.begin(), moments.end()},
                                                            block.steps[i]})
                             .second;
      RC_ASSERT(added);
    }
  });
  return rows;
}

std::vector<float> gradient_of(std::uint64_t id, std::int64_t width, std::uint64_t step) {
  const RandomStream stream(step, id);
  std::vector<float> values;
  for (std::int64_t i = 0; i < width; ++i) {
    values.push_back(static_cast<float>(stream.normal(static_cast<std::uint64_t>(i))));
  }
  return values;
}

rc::Gen<std::vector<std::uint64_t>> arbitrary_ids() {
  const auto any = rc::gen::oneOf(
      rc::gen::inRange<std::uint64_t>(0, 600), rc::gen::just(~std::uint64_t{0}),
      rc::gen::map(rc::gen::inRange<std::uint64_t>(0, 60),
                   [](std::uint64_t i) { return id_of_hash(~std::uint64_t{0} - i); }),
      rc::gen::map(rc::gen::inRange<std::uint64_t>(0, 60),
                   [](std::uint64_t i) { return id_of_hash((std::uint64_t{9} << 58) + i); }));
  return rc::gen::mapcat(rc::gen::element(0, 1, 31, 32, 33, 64, 65, 300), [any](int count) {
    return rc::gen::container<std::vector<std::uint64_t>>(static_cast<std::size_t>(count), any);
  });
}

TableModel::TableModel(const ps::SparseTableConfig& config, std::uint64_t seed)
    : width_(config.width),
      init_(config.init, config.init_scale, seed, config.name),
      method_(config.optimizer) {}

std::vector<float> TableModel::beginning(std::uint64_t id) const {
  std::vector<float> weights(static_cast<std::size_t>(width_));
  init_.fill(id, width_, weights.data());
  return weights;
}

void TableModel::update(std::span<const std::uint64_t> ids, const float* gradients,
                        double learning_rate, double gradient_scale) {
  const ops::FlushDenormals flush;
  method_.begin({.learning_rate = learning_rate, .gradient_scale = gradient_scale});
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto [found, made] = rows_.try_emplace(ids[i]);
    Row& row = found->second;
    if (made) {
      row.weights = beginning(ids[i]);
      row.state.assign(static_cast<std::size_t>(width_ * method_.moments()), 0.0F);
    }
    method_.apply(width_, row.weights.data(), gradients + static_cast<std::int64_t>(i) * width_,
                  row.state.data(), ++row.steps);
  }
}

std::vector<float> TableModel::read(std::span<const std::uint64_t> ids) const {
  std::vector<float> all;
  for (const std::uint64_t id : ids) {
    const auto found = rows_.find(id);
    const std::vector<float> row = found == rows_.end() ? beginning(id) : found->second.weights;
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

}  // namespace trireme::testing
