// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Text as tokens of one byte each, for the small GPTs among the examples.
//
//   const TextBatches text(path, 8, 64);            // 8 sequences of 64 bytes in a batch
//   if (text.too_short()) return 2;
//   const Batch batch = text.train(number);         // of an endless row of batches
#pragma once

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>

namespace trireme::examples {

// i64 [sequences, bytes], and what follows each byte.
struct Batch {
  at::Tensor inputs, targets;
};

class TextBatches {
 public:
  // Nine tenths of the file are to train on.
  TextBatches(const std::string& path, std::int64_t sequences, std::int64_t bytes)
      : sequences_(sequences), bytes_(bytes) {
    std::ifstream file(path);
    train_.assign(std::istreambuf_iterator<char>(file), {});
    held_out_ = train_.substr(train_.size() * 9 / 10);
    train_.resize(train_.size() - held_out_.size());
  }

  bool too_short() const { return static_cast<std::int64_t>(held_out_.size()) < 2 * bytes_; }
  Batch train(std::int64_t number) const { return batch(train_, number); }
  Batch held_out(std::int64_t number) const { return batch(held_out_, number); }

 private:
  // Sequences that begin at pseudo-random places.
  Batch batch(const std::string& text, std::int64_t number) const {
    const at::Tensor inputs = at::empty({sequences_, bytes_}, at::kLong);
    const at::Tensor targets = at::empty_like(inputs);
    for (std::int64_t i = 0; i < sequences_ * bytes_; ++i) {
      const auto sequence = static_cast<std::uint64_t>(number * sequences_ + i / bytes_);
      const std::uint64_t begin =
          sequence * 2654435761U % (text.size() - static_cast<std::uint64_t>(bytes_) - 1);
      const auto at = static_cast<std::size_t>(begin) + static_cast<std::size_t>(i % bytes_);
      inputs.data_ptr<std::int64_t>()[i] = static_cast<unsigned char>(text[at]);
      targets.data_ptr<std::int64_t>()[i] = static_cast<unsigned char>(text[at + 1]);
    }
    return {inputs, targets};
  }

  std::int64_t sequences_, bytes_;
  std::string train_, held_out_;
};

}  // namespace trireme::examples
