// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RowRouter: cuts rows of sparse tables into requests to slices, and puts what comes back in its
// place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "trireme/ps/row_request.h"

namespace trireme::ps {

struct PushRows;
struct PullRows;

// For one request to each slice. Not thread-safe; after lay_out() different slices from any thread.
class RowRouter {
 public:
  // The spans, and what they point to, must outlive it where they are used below.
  RowRouter(std::span<const PushRows> push, std::span<const PullRows> pull,
            std::span<const std::int64_t> widths, std::uint32_t slices);

  std::size_t request_bytes(std::uint32_t slice) const;
  std::size_t reply_bytes(std::uint32_t slice) const;
  bool pulls(std::uint32_t slice) const;
  // The slice's lists, for rows in place: gradients in `from` and wanted rows in `to`.
  std::string lists(std::uint32_t slice, std::span<const std::byte> from,
                    std::span<const std::byte> to) const;
  // Writes the slice's request into request_bytes().
  void write(std::uint32_t slice, std::span<std::byte> request) const;
  // The reply's rows go where the pull wants them. Reads no ids.
  void scatter(std::uint32_t slice, std::span<const std::byte> reply) const;

 private:
  // Rows of one table in one slice: places in the caller's list.
  using Places = std::vector<std::uint32_t>;
  struct Part {
    std::uint64_t table = 0;
    const PushRows* push = nullptr;
    const PullRows* pull = nullptr;
    Places pushed, pulled;
  };
  std::vector<RowSpace> spaces(std::uint32_t slice) const;
  Part& part_of(std::uint32_t slice, std::uint64_t table);

  std::span<const std::int64_t> widths_;
  std::vector<PushRows> push_;
  std::vector<PullRows> pull_;
  std::vector<std::vector<Part>> parts_;  // by slice, then ascending by table
};

}  // namespace trireme::ps
