// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Dense gradients of workers, encoded for the wire by the codecs of comm/codec.
//
//   DenseEncoder encoder("int8");          // one for each range: it owes what it lost
//   encoder.encode(gradient, wire);        // the worker
//   decode_dense("int8", wire, gradient);  // the server
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/comm/codec/codec.h"

namespace trireme::ps {

// "bf16", "int8" or "topk(0.01)". Throws ConfigError with the names that there are.
std::unique_ptr<Codec> make_dense_codec(std::string_view name);

// With error feedback: what one encoding leaves out is added to the next. Not thread-safe.
class DenseEncoder {
 public:
  // Throws ConfigError.
  explicit DenseEncoder(std::string_view name) : codec_(make_dense_codec(name)) {}
  std::size_t encoded_bytes(std::size_t count) const;
  // Overwrites values, which the codec may use as scratch. The same count each time.
  void encode(std::span<float> values, std::span<std::byte> encoded);

 private:
  std::unique_ptr<Codec> codec_;
  std::vector<float> owed_;
};

// Throws ProtocolError for an unknown name.
std::size_t encoded_dense_bytes(std::string_view codec, std::int64_t count);
// Throws ProtocolError for an unknown name or bytes that are no encoding of so many values.
void check_dense(std::string_view codec, std::span<const std::byte> encoded, std::int64_t count);
// Throws the same.
void decode_dense(std::string_view codec, std::span<const std::byte> encoded,
                  std::span<float> values);

}  // namespace trireme::ps
