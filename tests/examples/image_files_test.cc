// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/image_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using trireme::testing::TemporaryFolder;
using trireme::testing::write_text;

std::string be32(std::uint32_t value) {
  std::string bytes;
  for (const int shift : {24, 16, 8, 0}) bytes += static_cast<char>(value >> shift & 0xff);
  return bytes;
}

// count bytes, each of its own value: begin, begin + step, ...
std::string bytes_from(std::size_t count, int begin, int step = 1) {
  std::string bytes(count, '\0');
  for (std::size_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<char>(begin + step * static_cast<int>(i));
  }
  return bytes;
}

std::string idx(const std::vector<std::uint32_t>& shape, std::string_view data) {
  std::string bytes = be32(0x0800 + static_cast<std::uint32_t>(shape.size()));
  for (const std::uint32_t dim : shape) bytes += be32(dim);
  return bytes.append(data);
}

// Label, then three planes of 32 x 32, whose bytes start at seed.
std::string cifar_record(char label, int seed) { return label + bytes_from(3 * 32 * 32, seed, 7); }

class ImageFiles : public ::testing::Test {
 protected:
  std::string file(std::string_view name, std::string_view bytes) const {
    write_text(folder / name, bytes);
    return (folder / name).string();
  }
  // Five training images of 3 x 2 and two others, with labels.
  void write_mnist() const {
    file("train-images-idx3-ubyte", idx({5, 3, 2}, bytes_from(30, 100)));
    file("train-labels-idx1-ubyte", idx({5}, bytes_from(5, 3)));
    file("t10k-images-idx3-ubyte", idx({2, 3, 2}, bytes_from(12, 7)));
    file("t10k-labels-idx1-ubyte", idx({2}, bytes_from(2, 8)));
  }
  void write_cifar10() const {
    for (int batch = 1; batch <= 5; ++batch) {
      file("data_batch_" + std::to_string(batch) + ".bin",
           cifar_record(static_cast<char>(batch), batch) +
               cifar_record(static_cast<char>(batch + 1), 50 + batch));
    }
    file("test_batch.bin", cifar_record(9, 77));
  }
  auto throws(std::string_view file, std::string_view text) const {
    return ThrowsMessage<DataError>(
        AllOf(HasSubstr((folder / file).string()), HasSubstr(std::string(text))));
  }

  TemporaryFolder folder;
};

TEST_F(ImageFiles, IdxIsReadInItsShape) {
  const at::Tensor tensor = read_idx(file("a", idx({2, 1, 3}, bytes_from(6, 250))));
  EXPECT_EQ(tensor.scalar_type(), at::kByte);
  EXPECT_THAT(tensor.sizes(), ElementsAre(2, 1, 3));
  EXPECT_EQ(tensor[0][0][2].item<int>(), 252);
  EXPECT_EQ(tensor[1][0][2].item<int>(), 255);
  EXPECT_THAT(read_idx(file("none", idx({0, 4}, ""))).sizes(), ElementsAre(0, 4));
}

TEST_F(ImageFiles, IdxThatIsNoneIsNamed) {
  const auto read = [&](std::string_view bytes) {
    return [&, bytes] { read_idx(file("a", bytes)); };
  };
  EXPECT_THAT(read(""), throws("a", "its first 0 bytes"));
  EXPECT_THAT(read(std::string("\x1f\x8b\x08\x00", 4)), throws("a", "0x1f8b0800"));
  EXPECT_THAT(read(be32(0x0d01)), throws("a", "0x00000d01"));  // floats
  EXPECT_THAT(read(be32(0x0800)), throws("a", "0x00000800"));  // no dims
  EXPECT_THAT(read(be32(0x0809)), throws("a", "0x00000809"));  // nine
  EXPECT_THAT([&] { read_idx((folder / "missing").string()); },
              throws("missing", "No such file or directory"));
}

TEST_F(ImageFiles, IdxOfAnotherLengthIsNamed) {
  const std::string whole = idx({5, 3, 2}, bytes_from(30, 1));
  const auto read = [&](const std::string& bytes) {
    return [&, bytes] { read_idx(file("a", bytes)); };
  };
  EXPECT_THAT(read(whole.substr(0, 15)), throws("a", "15 bytes, but the header of 3 dims has 16"));
  EXPECT_THAT(read(whole.substr(0, 45)),
              throws("a", "29 bytes after the header, which says [5, 3, 2]"));
  EXPECT_THAT(read(whole + "x"), throws("a", "31 bytes after the header"));
  // Numbers whose product is 2^64 + 0, or ends at 30, in 64 bits.
  EXPECT_THAT(read(idx({1U << 31, 1U << 31, 4}, "")), throws("a", "0 bytes after the header"));
}

TEST_F(ImageFiles, MnistIsReadByItsNames) {
  write_mnist();
  const ImageSplits splits = read_mnist(folder.path().string());
  EXPECT_THAT(splits.train.images.sizes(), ElementsAre(5, 1, 3, 2));
  EXPECT_EQ(splits.train.images[4][0][2][1].item<int>(), 129);
  EXPECT_EQ(splits.train.labels.scalar_type(), at::kLong);
  EXPECT_EQ(splits.train.labels[4].item<int>(), 7);
  EXPECT_THAT(splits.held_out.images.sizes(), ElementsAre(2, 1, 3, 2));
  EXPECT_EQ(splits.held_out.images[1][0][0][1].item<int>(), 14);
  EXPECT_EQ(splits.held_out.labels[0].item<int>(), 8);
}

TEST_F(ImageFiles, MnistThatDoesNotFitTogetherIsNamed) {
  const auto read = [&] { read_mnist(folder.path().string()); };
  write_mnist();
  file("t10k-labels-idx1-ubyte", idx({3}, bytes_from(3, 1)));
  EXPECT_THAT(read, throws("t10k-labels-idx1-ubyte", "3 labels"));
  write_mnist();
  file("train-labels-idx1-ubyte", idx({5}, bytes_from(5, 6)));
  EXPECT_THAT(read, throws("train-labels-idx1-ubyte", "label 4 is 10"));
  write_mnist();
  file("train-labels-idx1-ubyte", idx({5, 1}, bytes_from(5, 1)));
  EXPECT_THAT(read, throws("train-labels-idx1-ubyte", "2 dims, not 1"));
  write_mnist();
  file("train-images-idx3-ubyte", idx({5, 6}, bytes_from(30, 1)));
  EXPECT_THAT(read, throws("train-images-idx3-ubyte", "2 dims, not 3"));
}

TEST_F(ImageFiles, Cifar10IsReadBatchByBatch) {
  write_cifar10();
  const ImageSplits splits = read_cifar10(folder.path().string());
  EXPECT_THAT(splits.train.images.sizes(), ElementsAre(10, 3, 32, 32));
  EXPECT_EQ(splits.train.labels[7].item<int>(), 5);  // second of batch 4
  // Blue, row 1, column 2 of that image: its pixel 2 * 1024 + 34.
  EXPECT_EQ(splits.train.images[7][2][1][2].item<int>(), (54 + 7 * (2 * 1024 + 34)) % 256);
  EXPECT_THAT(splits.held_out.images.sizes(), ElementsAre(1, 3, 32, 32));
  EXPECT_EQ(splits.held_out.labels[0].item<int>(), 9);
}

TEST_F(ImageFiles, Cifar10ThatIsDamagedIsNamed) {
  const auto read = [&] { read_cifar10(folder.path().string()); };
  write_cifar10();
  file("data_batch_3.bin", cifar_record(1, 1).substr(1));
  EXPECT_THAT(read, throws("data_batch_3.bin", "3072 bytes, not a multiple of CIFAR-10's 3073"));
  file("data_batch_3.bin", "");
  EXPECT_THAT(read, throws("data_batch_3.bin", "0 bytes"));
  write_cifar10();
  file("test_batch.bin", cifar_record(9, 1) + cifar_record(12, 1));
  EXPECT_THAT(read, throws("test_batch.bin", "label 1 is 12"));
}

TEST_F(ImageFiles, ArgumentsSayWhatIsRead) {
  write_mnist();
  write_cifar10();
  const std::string path = folder.path().string();
  EXPECT_EQ(read_images({"--mnist", path}).train.images.size(0), 5);
  EXPECT_EQ(read_images({"--cifar", path}).train.images.size(0), 10);
  for (const std::vector<std::string>& wrong :
       {std::vector<std::string>{"--mnist"}, {"--cifar100", path}, {}}) {
    EXPECT_THROW(read_images(wrong), ConfigError);
  }
}

}  // namespace
}  // namespace trireme::examples
