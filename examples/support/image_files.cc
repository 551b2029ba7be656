// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/image_files.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string_view>
#include <utility>
#include <vector>

#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw_error<DataError>("{}: {}; the files are read unpacked, as gunzip and tar leave them",
                           path, std::strerror(errno));
  }
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) throw_error<DataError>("{}: cannot be read to its end", path);
  return bytes;
}

// A new u8 tensor of the bytes.
at::Tensor to_tensor(std::string_view bytes, at::IntArrayRef shape) {
  at::Tensor tensor = at::empty(shape, at::kByte);
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(tensor.data_ptr<std::uint8_t>()));
  return tensor;
}

std::int64_t big_endian(std::string_view four_bytes) {
  std::int64_t value = 0;
  for (const char byte : four_bytes) value = value << 8 | static_cast<std::uint8_t>(byte);
  return value;
}

// images [N, C, H, W], labels [N] u8.
LabelledImages labelled(const std::string& path, at::Tensor images, const at::Tensor& labels) {
  const auto* values = labels.data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < labels.size(0); ++i) {
    if (values[i] >= kNumImageClasses) {
      throw_error<DataError>("{}: label {} is {}, and there are {} classes", path, i, values[i],
                             kNumImageClasses);
    }
  }
  return {std::move(images), labels.to(at::kLong)};
}

LabelledImages read_mnist_split(const std::string& prefix) {
  const std::string images_path = prefix + "-images-idx3-ubyte";
  const std::string labels_path = prefix + "-labels-idx1-ubyte";
  const at::Tensor images = read_idx(images_path);
  const at::Tensor labels = read_idx(labels_path);
  if (images.dim() != 3) {
    throw_error<DataError>("{}: {} dims, not 3: these are no images", images_path, images.dim());
  }
  if (labels.dim() != 1) {
    throw_error<DataError>("{}: {} dims, not 1: these are no labels", labels_path, labels.dim());
  }
  if (images.size(0) != labels.size(0) || labels.size(0) == 0) {
    throw_error<DataError>("{}: {} labels, but {} holds {} images", labels_path, labels.size(0),
                           images_path, images.size(0));
  }
  return labelled(labels_path, images.unsqueeze(1), labels);
}

LabelledImages read_cifar10_batch(const std::string& path) {
  constexpr std::size_t kImageBytes = 3 * 32 * 32;
  constexpr std::size_t kRecordBytes = 1 + kImageBytes;  // label, then red, green and blue planes
  const std::string bytes = read_file(path);
  if (bytes.empty() || bytes.size() % kRecordBytes != 0) {
    throw_error<DataError>("{}: {} bytes, not a multiple of CIFAR-10's {} per image", path,
                           bytes.size(), kRecordBytes);
  }
  const auto count = static_cast<std::int64_t>(bytes.size() / kRecordBytes);
  const at::Tensor records = to_tensor(bytes, {count, static_cast<std::int64_t>(kRecordBytes)});
  const at::Tensor pixels = records.narrow(1, 1, static_cast<std::int64_t>(kImageBytes));
  return labelled(path, pixels.reshape({count, 3, 32, 32}), records.select(1, 0).contiguous());
}

}  // namespace

at::Tensor read_idx(const std::string& path) {
  constexpr std::size_t kMaxDims = 8;
  constexpr std::size_t kUnsignedBytes = 0x08;
  const std::string bytes = read_file(path);
  const std::string_view view = bytes;
  const auto magic = view.size() < 4 ? -1 : big_endian(view.substr(0, 4));
  const auto num_dims = static_cast<std::size_t>(magic & 0xff);
  if (magic >> 8 != kUnsignedBytes || num_dims == 0 || num_dims > kMaxDims) {
    throw_error<DataError>(
        "{}: does not start as an IDX file of unsigned bytes: its first {} bytes are 0x{:08x}, "
        "and 0x00000801 to 0x00000808 would be right",
        path, std::min<std::size_t>(view.size(), 4),
        big_endian(view.substr(0, std::min<std::size_t>(view.size(), 4))));
  }
  const std::size_t header_bytes = 4 + 4 * num_dims;
  if (view.size() < header_bytes) {
    throw_error<DataError>("{}: {} bytes, but the header of {} dims has {}", path, view.size(),
                           num_dims, header_bytes);
  }
  const std::size_t data_bytes = view.size() - header_bytes;
  std::vector<std::int64_t> shape;
  std::size_t elements = 1;  // data_bytes + 1 for all that are more
  for (std::size_t d = 0; d < num_dims; ++d) {
    const auto dim = static_cast<std::size_t>(big_endian(view.substr(4 + 4 * d, 4)));
    shape.push_back(static_cast<std::int64_t>(dim));
    elements = dim != 0 && elements > data_bytes / dim ? data_bytes + 1 : elements * dim;
  }
  if (elements != data_bytes) {
    throw_error<DataError>("{}: {} bytes after the header, which says [{}]", path, data_bytes,
                           fmt::join(shape, ", "));
  }
  return to_tensor(view.substr(header_bytes), shape);
}

ImageSplits read_mnist(const std::string& folder) {
  return {read_mnist_split(folder + "/train"), read_mnist_split(folder + "/t10k")};
}

ImageSplits read_cifar10(const std::string& folder) {
  std::vector<at::Tensor> images;
  std::vector<at::Tensor> labels;
  for (int batch = 1; batch <= 5; ++batch) {
    const auto part = read_cifar10_batch(fmt::format("{}/data_batch_{}.bin", folder, batch));
    images.push_back(part.images);
    labels.push_back(part.labels);
  }
  return {{at::cat(images), at::cat(labels)}, read_cifar10_batch(folder + "/test_batch.bin")};
}

ImageSplits read_images(const std::vector<std::string>& arguments) {
  if (arguments.size() == 2 && arguments[0] == "--mnist") return read_mnist(arguments[1]);
  if (arguments.size() == 2 && arguments[0] == "--cifar") return read_cifar10(arguments[1]);
  throw_error<ConfigError>("arguments '{}': give --mnist FOLDER, or --cifar FOLDER, or none",
                           fmt::join(arguments, " "));
}

}  // namespace trireme::examples
