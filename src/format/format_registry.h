/*
 * format_registry.h
 *		Check the format tables once, when the library is loaded.
 */
#ifndef INGEST_FORMAT_REGISTRY_H
#define INGEST_FORMAT_REGISTRY_H

extern void ingest_format_registry_init(void);

#endif							/* INGEST_FORMAT_REGISTRY_H */
