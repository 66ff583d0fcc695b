/*
 * records_private.h
 *		Between records.c and records_xml.c.
 */
#ifndef INGEST_RECORDS_PRIVATE_H
#define INGEST_RECORDS_PRIVATE_H

#include "format/records.h"
#include "lib/stringinfo.h"

typedef struct IngestXmlCutter IngestXmlCutter;

struct IngestRecords
{
	IngestRecordsOptions options;
	Size		scanned;		/* bytes of the data that need not be looked at again */
	bool		inside;			/* CSV: within quotes, at "scanned" */
	bool		has_header;
	Size		header_len;		/* of CSV, at the beginning of "record"; a line break follows */
	StringInfoData record;		/* one that is not as it stands in the data */
	IngestXmlCutter *xml;
};

/* Sets *err, at an offset of the data. */
extern IngestRecordsNext ingest_records_fail(IngestRowError *err, int sqlstate, const char *message, Size at);
extern IngestRecordsNext ingest_records_too_long(const IngestRecords *records, IngestRowError *err, Size at);

extern IngestXmlCutter *ingest_xml_cutter_create(void);
extern void ingest_xml_cutter_begin(IngestRecords *records, const char *header, Size header_len);
extern const char *ingest_xml_cutter_open(const IngestXmlCutter *xml, Size *len);
extern IngestRecordsNext ingest_xml_cutter_next(IngestRecords *records, const char *data, Size len, bool last,
												Size *consumed, const char **record, Size *record_len,
												IngestRowError *err);

#endif							/* INGEST_RECORDS_PRIVATE_H */
