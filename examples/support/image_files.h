// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// MNIST and CIFAR-10 as their authors publish them, unpacked.
//
//   const ImageSplits digits = read_mnist("/data/mnist");
//
// Every function throws DataError, with the file and both numbers: a file that is missing, is of
// another kind, ends early or goes on, counts that differ, a label that is no class.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "examples/support/labelled_images.h"

namespace trireme::examples {

// One IDX file of unsigned bytes: u8, of the file's own shape, at most 8 dims.
// Source: yann.lecun.com/exdb/mnist, "The IDX file format".
at::Tensor read_idx(const std::string& path);

// {train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte in folder; also what has their
// form, as Fashion-MNIST. Images [N, 1, H, W].
ImageSplits read_mnist(const std::string& folder);

// data_batch_1.bin to data_batch_5.bin, and test_batch.bin as held out. Images [N, 3, 32, 32].
// Source: cs.toronto.edu/~kriz/cifar.html, "Binary version".
ImageSplits read_cifar10(const std::string& folder);

// What a program was told to read: {"--mnist", folder} or {"--cifar", folder}. Throws ConfigError
// for anything else.
ImageSplits read_images(const std::vector<std::string>& arguments);

}  // namespace trireme::examples
