// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Slices of sparse tables. State as bytes, a list of blocks: table (u64), rows (u64), then ids u64
// [rows], steps i64 [rows], weights f32 [rows, width] and state f32 [rows, state width], each up to
// a multiple of 8 bytes.

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <utility>

#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/reduction_tree.h"
#include "trireme/ps/range_storage.h"
#include "trireme/ps/row_request.h"
#include "trireme/ps/slices.h"
#include "trireme/ps/sparse_table.h"

namespace trireme::ps {
namespace {

constexpr std::int64_t kExportRows = 65536;  // in one block: a few tens of MiB

std::vector<std::int64_t> widths_of(const SparseLayout& sparse) {
  std::vector<std::int64_t> widths;
  for (const SparseTableConfig& table : sparse.tables) widths.push_back(table.width);
  return widths;
}

// A row of one contribution.
struct Found {
  std::uint64_t id;
  std::uint32_t contribution;  // in the order of ranks
  std::uint32_t row;
};

// All rows of one table, those of an id side by side in the order of ranks.
std::vector<Found> rows_by_id(const std::vector<std::vector<TableRows>>& contributions,
                              std::uint64_t table) {
  std::vector<Found> found;
  for (std::uint32_t c = 0; c < contributions.size(); ++c) {
    for (const TableRows& rows : contributions[c]) {
      if (rows.table != table) continue;
      for (std::uint32_t i = 0; i < rows.push_ids.size(); ++i) {
        const std::uint32_t place = rows.push_places.empty() ? i : rows.push_places[i];
        found.push_back({rows.push_ids[i], c, place});
      }
    }
  }
  std::sort(found.begin(), found.end(), [](const Found& left, const Found& right) {
    return std::pair(left.id, left.contribution) < std::pair(right.id, right.contribution);
  });
  return found;
}

class SliceStorage final : public RangeStorage {
 public:
  explicit SliceStorage(const SparseLayout& sparse) : widths_(widths_of(sparse)) {
    for (const SparseTableConfig& table : sparse.tables) tables_.emplace_back(table, sparse.seed);
  }

  void init(Bytes values) override {
    if (!values.empty()) import_state(values);
  }

  void check(const Contribution& contribution) const override { parse(contribution); }

  std::span<std::byte> sum(std::span<const Contribution> contributions,
                           const std::function<std::span<std::byte>(std::size_t)>& make) override {
    std::vector<std::vector<TableRows>> rows;
    for (const Contribution& contribution : contributions) {
      rows.push_back(parse(contribution));
    }
    std::vector<RowSpace> spaces;
    std::vector<std::vector<Found>> found(tables_.size());
    for (std::uint64_t table = 0; table < tables_.size(); ++table) {
      found[table] = rows_by_id(rows, table);
      std::size_t ids = 0;
      for (std::size_t i = 0; i < found[table].size(); ++i) {
        if (i == 0 || found[table][i].id != found[table][i - 1].id) ++ids;
      }
      if (ids > 0) spaces.push_back({.table = table, .pushed = ids});
    }
    const std::span<std::byte> out = make(row_request_bytes(spaces, widths_));
    lay_out_rows(out, spaces, widths_);
    for (const RowSpace& space : spaces) sum_table(rows, found[space.table], space);
    return out;
  }

  std::vector<double> block_sums(Bytes) override { return {}; }

  void apply(const Contribution& update, const UpdateScalars& scalars) override {
    for (const TableRows& rows : parse(update)) {
      tables_[rows.table].update(rows.push_ids, rows.rows, scalars.learning_rate,
                                 scalars.gradient_scale, rows.push_places);
    }
  }

  std::size_t read_bytes(const Contribution& request) const override {
    std::size_t bytes = 0;
    for (const TableRows& rows : parse(request)) {
      bytes = rows.pull_places.empty() ? bytes + rows.pull_ids.size() * row_bytes(rows.table)
                                       : std::max(bytes, rows.pull_end);
    }
    return bytes;
  }

  void read(const Contribution& request, std::span<std::byte> out) const override {
    for (const TableRows& rows : parse(request)) {
      const bool packed = rows.pull_places.empty();
      const std::size_t end = packed ? rows.pull_ids.size() * row_bytes(rows.table) : rows.pull_end;
      if (end > out.size()) throw_error<ProtocolError>("a request that grew while it was read");
      auto* const to = reinterpret_cast<float*>(out.data() + (packed ? 0 : rows.pull_begin));
      tables_[rows.table].read(rows.pull_ids, to, rows.pull_places);
      if (packed) out = out.subspan(end);
    }
  }

  void export_state(const std::function<void(Bytes)>& take) const override {
    for (std::uint64_t table = 0; table < tables_.size(); ++table) {
      tables_[table].for_each_block(
          kExportRows, [&](const SparseTable::Block& block) { write_block(table, block, take); });
    }
  }

  void check_init(Bytes values) const override {
    read_blocks(values, [this](std::size_t table, const SparseTable::Block& block) {
      tables_[table].check(block);
    });
  }

  void import_state(Bytes state) override {
    for (SparseTable& table : tables_) table.clear();
    read_blocks(state, [this](std::size_t table, const SparseTable::Block& block) {
      tables_[table].import(block);
    });
  }

  std::int64_t rows() const override {
    return std::accumulate(
        tables_.begin(), tables_.end(), std::int64_t{0},
        [](std::int64_t sum, const SparseTable& table) { return sum + table.rows(); });
  }
  std::int64_t memory_bytes() const override {
    return std::accumulate(
        tables_.begin(), tables_.end(), std::int64_t{0},
        [](std::int64_t sum, const SparseTable& table) { return sum + table.memory_bytes(); });
  }

  // f(table, block), for each block of a state.
  template <class F>
  void read_blocks(Bytes state, const F& f) const {
    while (!state.empty()) {
      const auto* const front = cut<std::uint64_t>(state, 2);
      const std::uint64_t table = front[0], rows = front[1];
      if (table >= tables_.size() || rows > state.size()) {
        throw_error<ProtocolError>("a state with {} rows of table {}", rows, table);
      }
      const SparseTable& of = tables_[table];
      const auto floats = [&](std::int64_t width) {
        const std::size_t count = rows * static_cast<std::size_t>(width);
        const auto* const values = cut<float>(state, count);
        if (count % 2 != 0) cut<float>(state, 1);
        return std::span(values, count);
      };
      SparseTable::Block block;
      block.ids = {cut<std::uint64_t>(state, rows), rows};
      block.steps = {cut<std::int64_t>(state, rows), rows};
      block.weights = floats(widths_[table]);
      block.state = floats(of.state_width());
      f(table, block);
    }
  }
  static void write_block(std::uint64_t table, const SparseTable::Block& block,
                          const std::function<void(Bytes)>& take) {
    const std::array<std::uint64_t, 2> front = {table, block.ids.size()};
    take(std::as_bytes(std::span(front)));
    take(std::as_bytes(block.ids));
    take(std::as_bytes(block.steps));
    take_floats(block.weights, take);
    take_floats(block.state, take);
  }
  // A block of some of another's rows.
  static void write_rows(std::uint64_t table, const SparseTable::Block& block,
                         const std::vector<std::size_t>& rows,
                         const std::function<void(Bytes)>& take) {
    std::vector<std::uint64_t> ids;
    std::vector<std::int64_t> steps;
    std::vector<float> weights, state;
    const auto add = [&](std::vector<float>& to, std::span<const float> from, std::size_t row) {
      const std::size_t width = from.size() / block.ids.size();
      const auto values = from.subspan(row * width, width);
      to.insert(to.end(), values.begin(), values.end());
    };
    for (const std::size_t row : rows) {
      ids.push_back(block.ids[row]);
      steps.push_back(block.steps[row]);
      add(weights, block.weights, row);
      add(state, block.state, row);
    }
    write_block(table, {ids, weights, state, steps}, take);
  }

 private:
  std::vector<TableRows> parse(const Contribution& request) const {
    if (request.lists.empty()) return parse_rows(request.payload, widths_);
    return parse_lists(request.lists, request.payload, widths_);
  }

  std::size_t row_bytes(std::uint64_t table) const {
    return static_cast<std::size_t>(widths_[table]) * sizeof(float);
  }

  static void take_floats(std::span<const float> values, const std::function<void(Bytes)>& take) {
    constexpr float kGap = 0;
    take(std::as_bytes(values));
    if (values.size() % 2 != 0) take(std::as_bytes(std::span(&kGap, 1)));
  }

  template <class T>
  static const T* cut(Bytes& state, std::size_t count) {
    if (count > state.size() / sizeof(T)) {
      throw_error<ProtocolError>("a state that ends in {} bytes where {} values are due",
                                 state.size(), count);
    }
    const auto* const values = reinterpret_cast<const T*>(state.data());
    state = state.subspan(count * sizeof(T));
    return values;
  }

  // Rows of one id are added in the tree of those who have it.
  void sum_table(const std::vector<std::vector<TableRows>>& contributions,
                 const std::vector<Found>& found, const RowSpace& space) const {
    const std::int64_t width = widths_[space.table];
    std::vector<const void*> inputs;
    std::size_t row = 0;
    for (std::size_t i = 0; i < found.size(); ++row) {
      const std::uint64_t id = found[i].id;
      inputs.clear();
      for (; i < found.size() && found[i].id == id; ++i) {
        for (const TableRows& rows : contributions[found[i].contribution]) {
          if (rows.table == space.table) inputs.push_back(rows.rows + found[i].row * width);
        }
      }
      space.push_ids[row] = id;
      reduce_tree(inputs, space.rows + static_cast<std::int64_t>(row) * width, width, DType::kF32,
                  ReduceOp::kSum);
    }
  }

  std::vector<std::int64_t> widths_;
  std::vector<SparseTable> tables_;
};

}  // namespace

std::unique_ptr<RangeStorage> make_slice_storage(const JobLayout& layout) {
  return std::make_unique<SliceStorage>(layout.sparse);
}

std::vector<std::vector<std::byte>> deal_slices(const SparseLayout& sparse,
                                                std::span<const std::vector<std::byte>> states) {
  const auto slices = static_cast<std::uint32_t>(sparse.slices);
  std::vector<std::vector<std::byte>> dealt(slices);
  const SliceStorage reader(sparse);
  for (const Bytes state : states) {
    reader.read_blocks(state, [&](std::uint64_t table, const SparseTable::Block& block) {
      std::vector<std::vector<std::size_t>> rows(slices);
      for (std::size_t i = 0; i < block.ids.size(); ++i) {
        rows[slice_of(block.ids[i], slices)].push_back(i);
      }
      for (std::uint32_t slice = 0; slice < slices; ++slice) {
        const auto take = [&](Bytes part) {
          dealt[slice].insert(dealt[slice].end(), part.begin(), part.end());
        };
        if (!rows[slice].empty()) SliceStorage::write_rows(table, block, rows[slice], take);
      }
    });
  }
  return dealt;
}

}  // namespace trireme::ps
