// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/dense_codec.h"

#include <charconv>
#include <cmath>

#include "trireme/base/error.h"
#include "trireme/comm/codec/block_codecs.h"
#include "trireme/comm/codec/top_k_codec.h"
#include "trireme/comm/meeting/frame.h"

namespace trireme::ps {
namespace {

constexpr std::string_view kTopK = "topk(";

std::unique_ptr<TopKCodec> make_top_k(std::string_view name) {
  double fraction = 0;
  const char* const end = name.data() + name.size() - 1;
  const auto result = std::from_chars(name.data() + kTopK.size(), end, fraction);
  if (result.ec != std::errc() || result.ptr != end || !(fraction > 0 && fraction <= 1))
    return nullptr;
  TopKOptions options;
  options.fraction = fraction;
  return std::make_unique<TopKCodec>(options);
}

}  // namespace

std::unique_ptr<Codec> make_dense_codec(std::string_view name) {
  std::unique_ptr<Codec> codec;
  if (name == "bf16") codec = std::make_unique<Bf16Codec>();
  if (name == "int8") codec = std::make_unique<Int8Codec>();
  if (name.starts_with(kTopK) && name.ends_with(')')) codec = make_top_k(name);
  if (codec == nullptr) {
    throw_error<ConfigError>(
        "codec '{}' is none for gradients to a parameter server: bf16, int8, or topk(f), f being "
        "the share of elements that travel, as in topk(0.01)",
        name);
  }
  return codec;
}

std::size_t DenseEncoder::encoded_bytes(std::size_t count) const {
  return codec_->encoded_bytes(static_cast<std::int64_t>(count));
}

void DenseEncoder::encode(std::span<float> values, std::span<std::byte> encoded) {
  owed_.resize(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] += owed_[i];
  codec_->encode(values, encoded, owed_);
}

std::size_t encoded_dense_bytes(std::string_view codec, std::int64_t count) {
  try {
    return make_dense_codec(codec)->encoded_bytes(count);
  } catch (const ConfigError& error) {
    throw ProtocolError(error.what());
  }
}

void check_dense(std::string_view codec, std::span<const std::byte> encoded, std::int64_t count) {
  const std::size_t wanted = encoded_dense_bytes(codec, count);
  if (encoded.size() != wanted) {
    throw_error<ProtocolError>("a contribution of {} bytes by codec '{}': wanted are {}",
                               encoded.size(), codec, wanted);
  }
  // Any bytes are values; indices must be of elements that there are.
  if (!codec.starts_with(kTopK)) return;
  try {
    make_top_k(codec)->decode_sparse(encoded, count);
  } catch (const CommError& error) {
    throw_error<ProtocolError>("a contribution by codec '{}': {}", codec, error.what());
  }
}

void decode_dense(std::string_view codec, std::span<const std::byte> encoded,
                  std::span<float> values) {
  try {
    make_dense_codec(codec)->decode(encoded, values);
  } catch (const Error& error) {
    throw_error<ProtocolError>("a contribution by codec '{}': {}", codec, error.what());
  }
}

}  // namespace trireme::ps
