/* The operators of the library, one file each. */
#ifndef EDGETK_ORT_LIBRARY_H
#define EDGETK_ORT_LIBRARY_H

#include "ort_abi.h"

extern const OrtCustomOp edgetk_op_binary_attention;
extern const OrtCustomOp edgetk_op_dense_sparse;
extern const OrtCustomOp edgetk_op_dense_sparse_by_row;
extern const OrtCustomOp edgetk_op_dense_sparse_int8;
extern const OrtCustomOp edgetk_op_dense_sparse_by_row_int8;
extern const OrtCustomOp edgetk_op_hard_attention;
extern const OrtCustomOp edgetk_op_lookup_linear;

#endif
