/* What the operators of the library do alike for ONNX Runtime: messages, inputs, the instruction set, one output on the CPU. */
#ifndef EDGETK_ORT_OPERATOR_H
#define EDGETK_ORT_OPERATOR_H

#include "isa.h"
#include "ort_abi.h"

enum { MAX_RANK = 8 };

typedef struct {
  const void *data;
  int64_t shape[MAX_RANK];
  size_t rank;
} tensor;

/* An error "edgetk::<who>: <text>, got <got>". */
OrtStatusPtr edgetk_fail(const OrtApi *api, const char *who, OrtErrorCode code, const char *text, const char *got);

/* An input of a rank from `least` to MAX_RANK. */
OrtStatusPtr edgetk_read_input(const OrtApi *api, const char *who, const OrtKernelContext *context, size_t index, size_t least,
                               tensor *out);

/* What EDGETK_ISA in the environment names, one of this processor's; "" for the best one. */
OrtStatusPtr edgetk_read_isa(const OrtApi *api, const char *who, char isa[16]);

const char *edgetk_on_cpu(const OrtCustomOp *op);
ONNXTensorElementDataType edgetk_is_float(const OrtCustomOp *op, size_t index);
size_t edgetk_one(const OrtCustomOp *op);
OrtCustomOpInputOutputCharacteristic edgetk_required(const OrtCustomOp *op, size_t index);
OrtMemType edgetk_memory(const OrtCustomOp *op, size_t index);

#endif
