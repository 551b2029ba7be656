// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_router.h"

#include <algorithm>
#include <cstring>

#include "trireme/base/error.h"
#include "trireme/ps/slices.h"
#include "trireme/ps/worker.h"

namespace trireme::ps {
namespace {

constexpr std::size_t kAhead = 8;  // rows that are fetched before they are copied

// Copies rows between two lists, of which one is scattered. Rows of a size known when compiled are
// copied by vector instructions.
template <std::size_t kWidth, class From, class To>
void copy_rows(std::size_t rows, std::size_t width, const From& from, const To& to) {
  for (std::size_t i = 0; i < rows; ++i) {
    if (i + kAhead < rows) {
      const float* const next = from(i + kAhead);
      for (std::size_t j = 0; j < width; j += 16) __builtin_prefetch(next + j);
      __builtin_prefetch(to(i + kAhead), 1);
    }
    std::memcpy(to(i), from(i), (kWidth > 0 ? kWidth : width) * sizeof(float));
  }
}

template <class From, class To>
void copy_rows(std::size_t rows, std::size_t width, const From& from, const To& to) {
  if (width == 16) return copy_rows<16>(rows, width, from, to);
  if (width == 32) return copy_rows<32>(rows, width, from, to);
  if (width == 64) return copy_rows<64>(rows, width, from, to);
  if (width == 128) return copy_rows<128>(rows, width, from, to);
  copy_rows<0>(rows, width, from, to);
}

template <class Rows>
void check(std::span<const Rows> all, std::size_t tables, const char* what) {
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].table >= tables) {
      throw_error<ShapeError>("{} of table {}: the job has {} tables", what, all[i].table, tables);
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (all[i].table != all[j].table) continue;
      throw_error<ShapeError>("{} of table {} twice in one call", what, all[i].table);
    }
    if (all[i].ids.size() > UINT32_MAX) {
      throw_error<ShapeError>("{} of {} rows at once: at most {}", what, all[i].ids.size(),
                              UINT32_MAX);
    }
  }
}

}  // namespace

RowRouter::RowRouter(std::span<const PushRows> push, std::span<const PullRows> pull,
                     std::span<const std::int64_t> widths, std::uint32_t slices)
    : widths_(widths),
      push_(push.begin(), push.end()),
      pull_(pull.begin(), pull.end()),
      parts_(slices) {
  check(push, widths.size(), "push");
  check(pull, widths.size(), "pull");
  const auto deal = [&](const auto& rows, auto Part::*which, Places Part::*places) {
    std::vector<Places*> by_slice(slices);
    for (std::uint32_t slice = 0; slice < slices; ++slice) {
      Part& part = part_of(slice, rows.table);
      part.*which = &rows;
      by_slice[slice] = &(part.*places);
      by_slice[slice]->reserve(rows.ids.size() / slices + rows.ids.size() / (8 * slices) + 16);
    }
    for (std::uint32_t i = 0; i < rows.ids.size(); ++i) {
      by_slice[slice_of(rows.ids[i], slices)]->push_back(i);
    }
  };
  for (const PushRows& rows : push_) deal(rows, &Part::push, &Part::pushed);
  for (const PullRows& rows : pull_) deal(rows, &Part::pull, &Part::pulled);
}

RowRouter::Part& RowRouter::part_of(std::uint32_t slice, std::uint64_t table) {
  std::vector<Part>& parts = parts_[slice];
  const auto at =
      std::lower_bound(parts.begin(), parts.end(), table,
                       [](const Part& part, std::uint64_t wanted) { return part.table < wanted; });
  if (at != parts.end() && at->table == table) return *at;
  return *parts.insert(at, Part{.table = table, .pushed = {}, .pulled = {}});
}

std::vector<RowSpace> RowRouter::spaces(std::uint32_t slice) const {
  std::vector<RowSpace> spaces;
  for (const Part& part : parts_[slice]) {
    spaces.push_back({part.table, part.pushed.size(), part.pulled.size()});
  }
  return spaces;
}

std::size_t RowRouter::request_bytes(std::uint32_t slice) const {
  return row_request_bytes(spaces(slice), widths_);
}

std::size_t RowRouter::reply_bytes(std::uint32_t slice) const {
  std::size_t bytes = 0;
  for (const Part& part : parts_[slice]) {
    bytes += part.pulled.size() * static_cast<std::size_t>(widths_[part.table]) * sizeof(float);
  }
  return bytes;
}

bool RowRouter::pulls(std::uint32_t slice) const {
  return std::any_of(parts_[slice].begin(), parts_[slice].end(),
                     [](const Part& part) { return !part.pulled.empty(); });
}

std::string RowRouter::lists(std::uint32_t slice, std::span<const std::byte> from,
                             std::span<const std::byte> to) const {
  const auto offset = [](std::span<const std::byte> memory, const float* at) {
    return static_cast<std::size_t>(reinterpret_cast<const std::byte*>(at) - memory.data());
  };
  std::vector<TableLists> tables;
  for (const Part& part : parts_[slice]) {
    TableLists lists{.table = part.table,
                     .push_ids = {},
                     .pull_ids = {},
                     .push_places = part.pushed,
                     .pull_places = part.pulled};
    if (part.push != nullptr) {
      lists.push_begin = offset(from, part.push->gradients);
      lists.push_rows = part.push->ids.size();
      lists.push_ids.reserve(part.pushed.size());
      for (const std::uint32_t place : part.pushed) {
        lists.push_ids.push_back(part.push->ids[place]);
      }
    }
    if (part.pull != nullptr) {
      lists.pull_begin = offset(to, part.pull->rows);
      lists.pull_rows = part.pull->ids.size();
      lists.pull_ids.reserve(part.pulled.size());
      for (const std::uint32_t place : part.pulled) {
        lists.pull_ids.push_back(part.pull->ids[place]);
      }
    }
    tables.push_back(std::move(lists));
  }
  return write_lists(tables);
}

void RowRouter::write(std::uint32_t slice, std::span<std::byte> request) const {
  std::vector<RowSpace> all = spaces(slice);
  lay_out_rows(request, all, widths_);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Part& part = parts_[slice][i];
    const RowSpace& space = all[i];
    const auto width = static_cast<std::size_t>(widths_[part.table]);
    for (std::size_t j = 0; j < part.pushed.size(); ++j) {
      space.push_ids[j] = part.push->ids[part.pushed[j]];
    }
    for (std::size_t j = 0; j < part.pulled.size(); ++j) {
      space.pull_ids[j] = part.pull->ids[part.pulled[j]];
    }
    copy_rows(
        part.pushed.size(), width,
        [&](std::size_t j) { return part.push->gradients + part.pushed[j] * width; },
        [&](std::size_t j) { return space.rows + j * width; });
  }
}

void RowRouter::scatter(std::uint32_t slice, std::span<const std::byte> reply) const {
  const auto* from = reinterpret_cast<const float*>(reply.data());
  for (const Part& part : parts_[slice]) {
    const auto width = static_cast<std::size_t>(widths_[part.table]);
    copy_rows(
        part.pulled.size(), width, [&](std::size_t j) { return from + j * width; },
        [&](std::size_t j) { return part.pull->rows + part.pulled[j] * width; });
    from += part.pulled.size() * width;
  }
}

}  // namespace trireme::ps
